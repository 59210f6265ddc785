// Frames from C++ threads through one deployment: embed_cpp DEPLOYMENT [FRAMES [THREADS]]
//
// Each thread has an image and logits of its own and calls the same runtime. The logits are those
// of the trained network, or the program ends with 3; then it prints how long a frame took.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "python.hpp"
#include "runtime.hpp"

namespace {

constexpr float kTolerance = 1e-4F;  // of the largest logit, as for every float32 engine

// What one thread does: frames from its own buffers, and how long each took.
class Worker {
 public:
  Worker(const parnet::Runtime& runtime, const parnet::Reference& reference)
      : runtime_(runtime), reference_(reference), image_(reference.image),
        logits_(reference.logits.size()) {}

  void run(int frames) noexcept {
    try {
      const parnet::PythonThread attached;
      runtime_.run_into(image_.data(), logits_.data(), 1);  // the first call is not a fair one
      for (int i = 0; i < frames; ++i) {
        const auto start = std::chrono::steady_clock::now();
        runtime_.run_into(image_.data(), logits_.data(), 1);
        const std::chrono::duration<double, std::milli> took =
            std::chrono::steady_clock::now() - start;
        taken_ms_.push_back(took.count());
        error_ = std::max(error_, distance());
      }
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  const std::vector<double>& taken_ms() const { return taken_ms_; }
  float error() const { return error_; }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  float distance() const {
    float apart = 0, largest = 0;
    for (std::size_t k = 0; k < logits_.size(); ++k) {
      const float difference = std::abs(logits_[k] - reference_.logits[k]);
      if (!std::isfinite(difference)) return std::numeric_limits<float>::infinity();
      apart = std::max(apart, difference);
      largest = std::max(largest, std::abs(reference_.logits[k]));
    }
    return apart / largest;
  }

  const parnet::Runtime& runtime_;
  const parnet::Reference& reference_;
  std::vector<float> image_, logits_;
  std::vector<double> taken_ms_;
  float error_ = 0;
  std::exception_ptr failure_;
};

double quantile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

int run(const std::string& path, int frames, int count) {
  const parnet::Runtime runtime(path, count);
  const parnet::Reference reference = parnet::read_reference(path);
  const parnet::Shape& shape = runtime.shape();
  std::printf("plan %s: %dx%dx%d, %d classes\n", runtime.plan().c_str(), shape.channels,
              shape.height, shape.width, shape.classes);
  if (reference.image.size() != shape.pixels()) {
    throw std::runtime_error("reference: got another size than the plan's largest.");
  }

  std::vector<Worker> workers(static_cast<std::size_t>(count), Worker(runtime, reference));
  std::vector<std::thread> threads;
  for (Worker& worker : workers) threads.emplace_back([&worker, frames] { worker.run(frames); });
  for (std::thread& thread : threads) thread.join();

  std::vector<double> taken_ms;
  float error = 0;
  for (const Worker& worker : workers) {
    worker.rethrow();
    taken_ms.insert(taken_ms.end(), worker.taken_ms().begin(), worker.taken_ms().end());
    error = std::max(error, worker.error());
  }
  std::sort(taken_ms.begin(), taken_ms.end());
  std::printf("%zu frames from %d threads: p50 %.3f ms, p99 %.3f ms\n", taken_ms.size(), count,
              quantile(taken_ms, 0.5), quantile(taken_ms, 0.99));
  std::printf("error %.1e of the largest logit, tolerance %.0e\n", static_cast<double>(error),
              static_cast<double>(kTolerance));
  return error <= kTolerance ? 0 : 3;
}

}  // namespace

int main(int argc, char** argv) {
  const int frames = argc > 2 ? std::atoi(argv[2]) : 1000;
  const int threads = argc > 3 ? std::atoi(argv[3]) : 2;
  if (argc < 2 || argc > 4 || frames < 1 || threads < 1) {
    std::fprintf(stderr, "usage: embed_cpp DEPLOYMENT [FRAMES [THREADS]]\n");
    return 2;
  }
  try {
    const parnet::Python python;
    return run(argv[1], frames, threads);
  } catch (const parnet::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.kind().c_str(), error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "embed_cpp: %s\n", error.what());
  }
  return 1;
}
