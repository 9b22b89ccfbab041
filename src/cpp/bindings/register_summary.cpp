#include <optional>

#include "mrfast/regression.hpp"
#include "mrfast/robust_regression.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using CountArray = py::array_t<std::int32_t, py::array::c_style>;

std::size_t common_size(const DoubleArray& x, const DoubleArray& y, const DoubleArray& s) {
  const auto n = static_cast<std::size_t>(x.size());
  require_size("y", y, n);
  require_size("s", s, n);
  return n;
}

py::tuple origin(const DoubleArray& x, const DoubleArray& y, const DoubleArray& s) {
  const OriginFit fit = fit_origin(x.data(), y.data(), s.data(), common_size(x, y, s));
  return py::make_tuple(fit.slope, fit.information, fit.q);
}

py::tuple line(const DoubleArray& x, const DoubleArray& y, const DoubleArray& s) {
  const LineFit fit = fit_line(x.data(), y.data(), s.data(), common_size(x, y, s));
  return py::make_tuple(fit.valid, fit.slope, fit.intercept, fit.slope_variance,
                        fit.intercept_variance, fit.q);
}

double mean_square(const DoubleArray& x, const DoubleArray& s) {
  require_size("s", s, static_cast<std::size_t>(x.size()));
  return mean_square_ratio(x.data(), s.data(), static_cast<std::size_t>(x.size()));
}

double size_q(const DoubleArray& x, const DoubleArray& s, const std::optional<DoubleArray>& scale) {
  const auto n = static_cast<std::size_t>(x.size());
  require_size("s", s, n);
  if (scale) require_size("scale", *scale, n);
  return heterogeneity_of_size(x.data(), s.data(), scale ? scale->data() : nullptr, n);
}

py::tuple robust(const DoubleArray& design, const DoubleArray& y, std::size_t most) {
  if (design.ndim() != 2 || design.shape(1) < 1)
    throw std::invalid_argument("design: expected a matrix of at least one column");
  const auto n = static_cast<std::size_t>(design.shape(0));
  const auto columns = static_cast<std::size_t>(design.shape(1));
  require_size("y", y, n);
  const double *const x = design.data(), *const response = y.data();
  RobustFit fit;
  {
    const py::gil_scoped_release release;
    fit = fit_robust(x, response, n, columns, most);
  }
  return py::make_tuple(fit.valid, to_array(fit.coefficients.data(), columns),
                        to_array(fit.covariance.data(), columns, columns), fit.scale);
}

// Checks the arrays of a panel and runs the kernel; Real is what the panel stores.
template <class Real>
void pairs(const py::array_t<Real, py::array::c_style>& data, std::size_t outcomes,
           const IndexArray& starts, const IndexArray& rows, const DoubleArray& bx, DoubleArray out,
           std::optional<CountArray> counts, std::size_t threads) {
  if (data.ndim() != 4 || data.shape(2) != 3 || data.shape(3) < 1 ||
      static_cast<std::size_t>(data.shape(3)) > kWidest)
    throw std::invalid_argument("panel: expected shape (blocks, SNPs, 3, at most 256)");
  const auto snps = static_cast<std::size_t>(data.shape(1));
  const auto width = static_cast<std::size_t>(data.shape(3));
  if (static_cast<std::size_t>(data.shape(0)) != (outcomes + width - 1) / width)
    throw std::invalid_argument("panel: expected as many blocks as the outcomes need");
  if (starts.size() < 1) throw std::invalid_argument("starts: expected at least one element");
  const auto exposures = static_cast<std::size_t>(starts.size() - 1);
  require_size("bx", bx, static_cast<std::size_t>(rows.size()));
  require_size("out", out, kPairPlanes * exposures * outcomes);
  if (counts) require_size("counts", *counts, exposures * outcomes);
  const std::int64_t *const start = starts.data(), *const row = rows.data();
  if (start[0] != 0 || start[exposures] != rows.size())
    throw std::invalid_argument("starts: expected 0 first and the number of rows last");
  for (std::size_t e = 0; e < exposures; ++e)
    if (start[e] > start[e + 1]) throw std::invalid_argument("starts: expected ascending numbers");
  for (py::ssize_t k = 0; k < rows.size(); ++k)
    if (row[k] < 0 || static_cast<std::size_t>(row[k]) >= snps)
      throw std::invalid_argument("rows: expected rows of the panel");
  const OutcomePanel<Real> panel{data.data(), snps, outcomes, width};
  const ExposureLists lists{start, row, bx.data(), exposures};
  double* const to = out.mutable_data();
  std::int32_t* const count = counts ? counts->mutable_data() : nullptr;
  attended([&](Monitor& monitor) { fit_pairs(panel, lists, to, count, threads, monitor); });
}

}  // namespace

void register_summary(py::module_ module) {
  module.def("fit_origin", &origin, py::arg("x").noconvert(), py::arg("y").noconvert(),
             py::arg("s").noconvert());
  module.def("fit_line", &line, py::arg("x").noconvert(), py::arg("y").noconvert(),
             py::arg("s").noconvert());
  module.def("mean_square_ratio", &mean_square, py::arg("x").noconvert(), py::arg("s").noconvert());
  module.def("heterogeneity_of_size", &size_q, py::arg("x").noconvert(), py::arg("s").noconvert(),
             py::arg("scale").noconvert());
  module.def("fit_robust", &robust, py::arg("design").noconvert(), py::arg("y").noconvert(),
             py::arg("most"));
  module.def("fit_pairs_float", &pairs<float>, py::arg("panel").noconvert(), py::arg("outcomes"),
             py::arg("starts").noconvert(), py::arg("rows").noconvert(), py::arg("bx").noconvert(),
             py::kw_only(), py::arg("out").noconvert(), py::arg("counts").noconvert(),
             py::arg("threads"));
  module.def("fit_pairs_double", &pairs<double>, py::arg("panel").noconvert(), py::arg("outcomes"),
             py::arg("starts").noconvert(), py::arg("rows").noconvert(), py::arg("bx").noconvert(),
             py::kw_only(), py::arg("out").noconvert(), py::arg("counts").noconvert(),
             py::arg("threads"));
}

}  // namespace mrfast::bindings
