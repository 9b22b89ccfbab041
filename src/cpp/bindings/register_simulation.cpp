#include <cmath>
#include <cstdint>

#include "mrfast/variates.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

NormalStream stream_of(std::uint64_t seed, std::uint64_t stream) {
  return {key_of(seed), static_cast<std::uint32_t>(stream),
          static_cast<std::uint32_t>(stream >> 32)};
}

using Variates = void (*)(const NormalStream&, std::uint32_t, std::size_t, double*, Monitor&);

template <Variates Draw>
DoubleArray variates(std::uint64_t seed, std::uint64_t stream, std::uint32_t column,
                     std::size_t n) {
  require_draws("n", n);
  DoubleArray out(static_cast<py::ssize_t>(n));
  double* const values = out.mutable_data();
  attended([&](Monitor& monitor) { Draw(stream_of(seed, stream), column, n, values, monitor); });
  return out;
}

DoubleArray betas(std::uint64_t seed, std::uint64_t stream, double a, double b, std::size_t n) {
  require_draws("n", n);
  if (!(a > 0 && b > 0 && std::isfinite(a) && std::isfinite(b)))
    throw std::invalid_argument("a, b: expected finite numbers above 0");
  DoubleArray out(static_cast<py::ssize_t>(n));
  double* const values = out.mutable_data();
  attended(
      [&](Monitor& monitor) { beta_variates(stream_of(seed, stream), a, b, n, values, monitor); });
  return out;
}

py::array_t<std::int8_t> dosages(std::uint64_t seed, std::uint64_t stream,
                                 const DoubleArray& frequencies, std::size_t n) {
  require_draws("n", n);
  const auto columns = static_cast<std::size_t>(frequencies.size());
  for (std::size_t j = 0; j < columns; ++j)
    if (!(frequencies.data()[j] >= 0 && frequencies.data()[j] <= 1))
      throw std::invalid_argument("frequencies: expected numbers from 0 to 1");
  py::array_t<std::int8_t> out({static_cast<py::ssize_t>(n), frequencies.size()});
  std::int8_t* const values = out.mutable_data();
  const double* const f = frequencies.data();
  attended([&](Monitor& monitor) {
    dosage_variates(stream_of(seed, stream), f, columns, n, values, monitor);
  });
  return out;
}

DoubleArray weighted_sum(const py::array_t<std::int8_t>& values, const DoubleArray& weights) {
  if (values.ndim() != 2) throw std::invalid_argument("dosages: expected 2 dimensions");
  require_size("weights", weights, static_cast<std::size_t>(values.shape(1)));
  DoubleArray out(values.shape(0));
  double* const sums = out.mutable_data();
  const std::int8_t* const from = values.data();
  const auto rows = static_cast<std::size_t>(values.shape(0)),
             columns = static_cast<std::size_t>(values.shape(1));
  const std::ptrdiff_t row_stride = values.strides(0), column_stride = values.strides(1);
  const double* const w = weights.data();
  attended([&](Monitor& monitor) {
    weighted_dosages(from, row_stride, column_stride, w, columns, rows, sums, monitor);
  });
  return out;
}

}  // namespace

void register_simulation(py::module_ module) {
  const auto seed = py::arg("seed"), stream = py::arg("stream"), column = py::arg("column"),
             n = py::arg("n");
  module.def("normals", &variates<&normal_variates>, py::kw_only(), seed, stream, column, n);
  module.def("uniforms", &variates<&uniform_variates>, py::kw_only(), seed, stream, column, n);
  module.def("exponentials", &variates<&exponential_variates>, py::kw_only(), seed, stream, column,
             n);
  module.def("betas", &betas, py::kw_only(), seed, stream, py::arg("a"), py::arg("b"), n);
  module.def("dosages", &dosages, py::kw_only(), seed, stream, py::arg("frequencies").noconvert(),
             n);
  module.def("weighted_sum", &weighted_sum, py::arg("dosages").noconvert(),
             py::arg("weights").noconvert());
}

}  // namespace mrfast::bindings
