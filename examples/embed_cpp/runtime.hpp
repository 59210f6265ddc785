// parnet_deploy's Runtime as a C++ class: plain pointers in and out, C++ exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/embed.h>
#include <pybind11/stl.h>

namespace parnet {

// An error of parnet_deploy (or of Python): its message, and the name of its class.
class Error : public std::runtime_error {
 public:
  Error(std::string kind, const std::string& message)
      : std::runtime_error(message), kind_(std::move(kind)) {}

  const std::string& kind() const { return kind_; }

 private:
  std::string kind_;  // "InputError", "DeploymentNotFoundError", ...
};

// Calls Python with its lock held. What Python raises becomes an Error before the lock is let go,
// for a Python exception must not be touched without it.
template <typename Work>
auto with_python(Work work) -> decltype(work()) {
  const pybind11::gil_scoped_acquire lock;
  try {
    return work();
  } catch (const pybind11::error_already_set& error) {
    throw Error(pybind11::str(error.type().attr("__name__")),
                pybind11::str(error.value()));
  }
}

struct Shape {
  int channels, height, width, classes;

  std::size_t pixels() const {
    return static_cast<std::size_t>(channels) * static_cast<std::size_t>(height) *
           static_cast<std::size_t>(width);
  }
};

struct Reference {
  std::vector<float> image, logits;
};

// A deployment, opened. Any thread may call it; `slots` calls compute at the same time.
class Runtime {
 public:
  Runtime(const std::string& path, int slots) {
    with_python([&] {
      const auto opened = pybind11::module_::import("parnet_deploy").attr("Runtime");
      runtime_ = opened.attr("open")(path, pybind11::arg("slots") = slots);
      run_into_ = runtime_.attr("run_into");
      const auto spec = runtime_.attr("spec");
      const auto size = runtime_.attr("input_size").attr("high").cast<std::pair<int, int>>();
      shape_ = {spec.attr("in_channels").cast<int>(), size.first, size.second,
                spec.attr("num_classes").cast<int>()};
      const auto about = runtime_.attr("describe")();
      plan_ = about["plan"].cast<std::string>();
    });
  }

  ~Runtime() {
    const pybind11::gil_scoped_acquire lock;
    try {
      runtime_.attr("close")();
    } catch (const pybind11::error_already_set&) {  // a destructor has nobody to tell
    }
    run_into_ = pybind11::object();
    runtime_ = pybind11::object();
  }

  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Shape& shape() const { return shape_; }
  const std::string& plan() const { return plan_; }

  // Reads n images (channels, height, width) where they are and writes n rows of logits. Python
  // sees two addresses; its lock is free while the engines run.
  void run_into(const float* images, float* logits, int n) const {
    with_python([&] {
      run_into_(reinterpret_cast<std::uintptr_t>(images), reinterpret_cast<std::uintptr_t>(logits),
                n);
    });
  }

 private:
  pybind11::object runtime_, run_into_;
  Shape shape_{};
  std::string plan_;
};

// The image and the logits that the trained network gave for it when it was exported.
inline Reference read_reference(const std::string& path) {
  return with_python([&] {
    const auto module = pybind11::module_::import("parnet_deploy.reference");
    const auto deployments = pybind11::module_::import("parnet_deploy.deployment");
    const auto data = deployments.attr("Deployment").attr("open")(path).attr("read_bytes")(
        module.attr("REFERENCE"));
    const auto stored = module.attr("Reference").attr("unpack")(data, path);
    const auto values = [&](const char* name) {
      return stored.attr(name).attr("ravel")().attr("tolist")().cast<std::vector<float>>();
    };
    return Reference{values("image"), values("logits")};
  });
}

}  // namespace parnet
