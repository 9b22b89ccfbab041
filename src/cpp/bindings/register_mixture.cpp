#include "mrfast/inclusion.hpp"
#include "mrfast/lasso_path.hpp"
#include "mrfast/subset_mixture.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

SnpGains gains_of(const DoubleArray& ratios, const DoubleArray& errors, const DoubleArray& gains) {
  const auto n = static_cast<std::size_t>(ratios.size());
  require_size("errors", errors, n);
  require_size("gains", gains, n);
  return {n, ratios.data(), errors.data(), gains.data()};
}

py::tuple maximum(const DoubleArray& ratios, const DoubleArray& errors, const DoubleArray& gains) {
  const SnpGains data = gains_of(ratios, errors, gains);
  GainMaximum found;
  {
    const py::gil_scoped_release release;
    found = largest_gain(data);
  }
  return py::make_tuple(found.at, found.value);
}

DoubleArray level_set(const DoubleArray& ratios, const DoubleArray& errors,
                      const DoubleArray& gains, double level, double centre) {
  const SnpGains data = gains_of(ratios, errors, gains);
  std::vector<double> ends;
  {
    const py::gil_scoped_release release;
    ends = gain_level_set(data, level, centre);
  }
  return to_array(ends.data(), ends.size() / 2, 2);
}

py::tuple subsets(const DoubleArray& ratios, const DoubleArray& errors, double prior,
                  std::size_t smallest) {
  const auto n = static_cast<std::size_t>(ratios.size());
  require_size("errors", errors, n);
  if (n < 1 || n > kMostSubsetSnps) throw std::invalid_argument("ratios: expected 1 to 30");
  if (smallest < 1 || smallest > n)
    throw std::invalid_argument("smallest: expected a number from 1 to that of the ratios");
  if (!(prior > 0 && prior < 1)) throw std::invalid_argument("prior: expected one from 0 to 1");
  const double *const r = ratios.data(), *const s = errors.data();
  SubsetMixture found;
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    subset_mixture(n, r, s, prior, smallest, monitor, found);
  }
  attendant.rethrow();
  DoubleArray parts({static_cast<py::ssize_t>(found.parts.size()), py::ssize_t{3}});
  double* row = parts.mutable_data();
  for (const NormalPart& part : found.parts) {
    *row++ = part.weight;
    *row++ = part.mean;
    *row++ = part.variance;
  }
  return py::make_tuple(parts, found.log_scale, found.models);
}

py::array_t<std::int64_t> integers(const std::vector<std::int64_t>& values) {
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple path(const DoubleArray& columns, const DoubleArray& response, const DoubleArray& scale,
               double lowest) {
  if (columns.ndim() != 2 || columns.shape(1) < 1)
    throw std::invalid_argument("columns: expected a matrix, one column an exposure");
  const auto n = static_cast<std::size_t>(columns.shape(0));
  const auto k = static_cast<std::size_t>(columns.shape(1));
  require_size("response", response, n);
  require_size("scale", scale, n);
  const double *const x = columns.data(), *const y = response.data(), *const c = scale.data();
  LassoPath found;
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    found = lasso_path(n, k, x, y, c, lowest, monitor);
  }
  attendant.rethrow();
  const std::size_t m = found.penalty.size();
  return py::make_tuple(to_array(found.penalty.data(), m), to_array(found.estimate.data(), m, k),
                        to_array(found.slope.data(), m, k), to_array(found.q.data(), m),
                        integers(found.valid), integers(found.changed), integers(found.sign));
}

}  // namespace

void register_mixture(py::module_ module) {
  module.doc() = "Valid and invalid SNPs: mixtures, sets of SNPs, the lasso on their intercepts.";
  const auto ratios = py::arg("ratios").noconvert(), errors = py::arg("errors").noconvert(),
             gains = py::arg("gains").noconvert();
  module.def("largest_gain", &maximum, ratios, errors, gains);
  module.def("gain_level_set", &level_set, ratios, errors, gains, py::kw_only(), py::arg("level"),
             py::arg("centre"));
  module.def("subset_mixture", &subsets, ratios, errors, py::kw_only(), py::arg("prior"),
             py::arg("smallest"));
  module.def("lasso_path", &path, py::arg("columns").noconvert(), py::arg("response").noconvert(),
             py::arg("scale").noconvert(), py::kw_only(), py::arg("lowest"));
}

}  // namespace mrfast::bindings
