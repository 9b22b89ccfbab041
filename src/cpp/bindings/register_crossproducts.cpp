#include "mrfast/cross_products.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

DoubleArray weighted(const DoubleArray& left, const DoubleArray& right, const py::object& weights,
                     std::size_t threads) {
  if (left.ndim() != 2 || right.ndim() != 2 || left.shape(0) != right.shape(0))
    throw std::invalid_argument("left, right: expected two matrices of as many rows");
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  const auto n = static_cast<std::size_t>(left.shape(0));
  const auto k = static_cast<std::size_t>(left.shape(1));
  const auto m = static_cast<std::size_t>(right.shape(1));
  DoubleArray kept;
  const double* weight = nullptr;
  if (!weights.is_none()) {
    if (!py::isinstance<DoubleArray>(weights))
      throw py::type_error("weights: expected a contiguous array of float64");
    kept = py::reinterpret_borrow<DoubleArray>(weights);
    require_size("weights", kept, n);
    weight = kept.data();
  }
  DoubleArray out({left.shape(1), right.shape(1)});
  const double *const a = left.data(), *const b = right.data();
  double* const sums = out.mutable_data();
  attended(
      [&](Monitor& monitor) { cross_products(a, k, b, m, weight, n, sums, threads, monitor); });
  return out;
}

}  // namespace

void register_crossproducts(py::module_ module) {
  module.doc() = "Sums over rows of products of columns.";
  module.def("weighted", &weighted, py::arg("left").noconvert(), py::arg("right").noconvert(),
             py::arg("weights"), py::kw_only(), py::arg("threads"));
}

}  // namespace mrfast::bindings
