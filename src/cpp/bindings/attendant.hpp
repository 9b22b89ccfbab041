// Looks after signals and progress while kernels run without the GIL; what was raised is raised
// again once they have stopped.
#pragma once

#include <cstdint>
#include <exception>
#include <utility>

#include "pybind.hpp"

namespace mrfast::bindings {

class KernelAttendant {
 public:
  explicit KernelAttendant(py::object progress) : progress_(std::move(progress)) {}

  bool operator()(std::uint64_t done) {
    const py::gil_scoped_acquire acquire;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!progress_.is_none()) progress_(done);
      return false;
    } catch (...) {
      failure_ = std::current_exception();
      return true;
    }
  }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  py::object progress_;
  std::exception_ptr failure_;
};

}  // namespace mrfast::bindings
