// An embedded interpreter that finds the packages of a virtual environment.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

#include <pybind11/embed.h>

namespace parnet {

// Starts Python for as long as it lives, and lets go of its lock: whoever calls Python takes it,
// whichever thread that is. Make one, in main, before anything else of this program.
class Python {
 public:
  Python() : interpreter_(configured(), 0, nullptr, false) {}

 private:
  // A virtual environment is found by its executable: the one of the build, or PARNET_PYTHON.
  // Isolated: PYTHONHOME and PYTHONPATH of the host's user mean other programs.
  static PyConfig* configured() {
    const char* chosen = std::getenv("PARNET_PYTHON");
    const std::string executable = chosen && *chosen ? chosen : DEFAULT_PYTHON;
    PyPreConfig first;
    PyPreConfig_InitIsolatedConfig(&first);
    first.utf8_mode = 1;  // whatever the locale
    check(Py_PreInitialize(&first));
    static PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    check(PyConfig_SetBytesString(&config, &config.executable, executable.c_str()));
    return &config;  // the interpreter clears it
  }

  static void check(const PyStatus& status) {
    if (PyStatus_Exception(status)) throw std::runtime_error(status.err_msg);
  }

  pybind11::scoped_interpreter interpreter_;
  pybind11::gil_scoped_release unlocked_;
};

// For a thread that calls Python often: its state is made once, and not in each call. Holds no lock.
class PythonThread {
 private:
  pybind11::gil_scoped_acquire attached_;
  pybind11::gil_scoped_release unlocked_;
};

}  // namespace parnet
