#include <cstdint>

#include "mrfast/least_absolute.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

py::tuple least_absolute(const DoubleArray& x, const DoubleArray& y, const DoubleArray& weights) {
  if (x.ndim() != 2 || x.shape(1) < 1 || x.shape(0) < x.shape(1))
    throw std::invalid_argument("x: expected a matrix with at least as many rows as columns");
  const auto n = static_cast<std::size_t>(x.shape(0)), k = static_cast<std::size_t>(x.shape(1));
  require_size("y", y, n);
  require_size("weights", weights, n);
  const double *const rows = x.data(), *const response = y.data(), *const weight = weights.data();
  std::vector<std::size_t> basis;
  LeastAbsolute problem(n, k);
  bool valid = false;
  {
    const py::gil_scoped_release release;
    valid = problem.fit(rows, response, weight, basis);
  }
  IndexArray places(static_cast<py::ssize_t>(basis.size()));
  for (std::size_t i = 0; i < basis.size(); ++i)
    places.mutable_data()[i] = static_cast<std::int64_t>(basis[i]);
  return py::make_tuple(valid, to_array(problem.coefficients().data(), k), places,
                        problem.unique());
}

DoubleArray bootstrap(const DoubleArray& bx, const DoubleArray& sx, const DoubleArray& by,
                      const DoubleArray& sy, const DoubleArray& weights, const DoubleArray& lower,
                      const IndexArray& basis, std::size_t draws, std::uint64_t seed,
                      std::uint32_t set, std::uint32_t purpose, std::size_t threads) {
  if (bx.ndim() != 2 || bx.shape(1) < 1 || bx.shape(0) < bx.shape(1))
    throw std::invalid_argument("bx: expected a matrix with at least as many rows as columns");
  const auto j = static_cast<std::size_t>(bx.shape(0)), k = static_cast<std::size_t>(bx.shape(1));
  require_size("sx", sx, j * k);
  require_size("by", by, j);
  require_size("sy", sy, j);
  require_size("weights", weights, j);
  require_size("lower", lower, k * k);
  require_size("basis", basis, k);
  require_draws("draws", draws);
  std::vector<std::size_t> start;
  for (std::size_t i = 0; i < k; ++i) {
    const std::int64_t place = basis.data()[i];
    if (place < 0 || place >= bx.shape(0))
      throw std::invalid_argument("basis: expected numbers of rows");
    start.push_back(static_cast<std::size_t>(place));
  }
  const MultipleAssociations data{j,         k,         bx.data(),      sx.data(),
                                  by.data(), sy.data(), weights.data(), lower.data()};
  DoubleArray out({static_cast<py::ssize_t>(draws), bx.shape(1)});
  double* const coefficients = out.mutable_data();
  const NormalStream stream{key_of(seed), set, purpose};
  attended([&](Monitor& monitor) {
    bootstrap_least_absolute(data, stream, start, draws, coefficients, threads, monitor);
  });
  return out;
}

}  // namespace

void register_multivariable(py::module_ module) {
  module.doc() = "Several exposures: least absolute deviations and their bootstrap.";
  module.def("least_absolute", &least_absolute, py::arg("x").noconvert(), py::arg("y").noconvert(),
             py::arg("weights").noconvert());
  module.def("bootstrap_least_absolute", &bootstrap, py::arg("bx").noconvert(),
             py::arg("sx").noconvert(), py::arg("by").noconvert(), py::arg("sy").noconvert(),
             py::arg("weights").noconvert(), py::arg("lower").noconvert(),
             py::arg("basis").noconvert(), py::kw_only(), py::arg("draws"), py::arg("seed"),
             py::arg("set"), py::arg("purpose"), py::arg("threads"));
}

}  // namespace mrfast::bindings
