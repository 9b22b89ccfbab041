// The only place that includes pybind11: array aliases and conversions to the kernels' types.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "mrfast/parallel.hpp"
#include "mrfast/random.hpp"

namespace py = pybind11;

namespace mrfast::bindings {

// C-contiguous arrays of exactly this type; conversions happen in Python, where they are visible.
using DoubleArray = py::array_t<double, py::array::c_style>;
using BoolArray = py::array_t<bool, py::array::c_style>;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

inline std::vector<double> to_vector(const DoubleArray& array) {
  return {array.data(), array.data() + array.size()};
}

inline void require_size(const char* name, const py::array& array, std::size_t size) {
  if (static_cast<std::size_t>(array.size()) != size)
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(size) +
                                " elements, received " + std::to_string(array.size()));
}

inline DoubleArray to_array(const double* data, std::size_t size) {
  return DoubleArray(static_cast<py::ssize_t>(size), data);
}

inline DoubleArray to_array(const double* data, std::size_t rows, std::size_t columns) {
  return DoubleArray({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(columns)}, data);
}

// Looks after signals and progress while kernels run without the GIL; what was raised is raised
// again once they have stopped.
class Attendant {
 public:
  explicit Attendant(py::object progress) : progress_(std::move(progress)) {}

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

// Calls work(monitor) without the GIL, which may touch no Python object.
template <class Work>
void attended(const Work& work) {
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    work(monitor);
  }
  attendant.rethrow();
}

// Key of counter-based random numbers, whose draws are counted by 32 bits.
inline Philox::Key key_of(std::uint64_t seed) {
  return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
}

inline void require_draws(const char* name, std::size_t draws) {
  if (draws > std::numeric_limits<std::uint32_t>::max())
    throw std::invalid_argument(std::string(name) + ": expected less than 2^32");
}

void register_bayes(py::module_ module);
void register_constrained(py::module_ module);
void register_exact(py::module_ module);
void register_federated(py::module_ module);
void register_identified(py::module_ module);
void register_ld(py::module_ module);
void register_multivariable(py::module_ module);
void register_likelihood(py::module_ module);
void register_presso(py::module_ module);
void register_summary(py::module_ module);
void register_medians(py::module_ module);
void register_mixture(py::module_ module);
void register_genotypes(py::module_ module);
void register_texts(py::module_ module);
void register_harmonise(py::module_ module);
void register_matrix(py::module_ module);
void register_simulation(py::module_ module);
void register_crossproducts(py::module_ module);
void register_sieve(py::module_ module);

}  // namespace mrfast::bindings
