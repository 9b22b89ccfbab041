#include <cstdint>
#include <optional>

#include "mrfast/logistic.hpp"
#include "mrfast/parallel.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using OptionalArray = std::optional<py::array>;

NumberType type_of(const char* name, const py::array& array) {
  if (py::isinstance<py::array_t<double>>(array)) return NumberType::kDouble;
  if (py::isinstance<py::array_t<float>>(array)) return NumberType::kFloat;
  if (py::isinstance<py::array_t<std::int8_t>>(array)) return NumberType::kInt8;
  throw std::invalid_argument(std::string(name) + ": expected float64, float32 or int8");
}

// Columns of a matrix of any strides.
std::vector<Column> columns_of(const char* name, const py::array& matrix, std::size_t rows) {
  if (matrix.ndim() != 2 || static_cast<std::size_t>(matrix.shape(0)) != rows)
    throw std::invalid_argument(std::string(name) + ": expected a matrix of " +
                                std::to_string(rows) + " rows");
  const NumberType type = type_of(name, matrix);
  std::vector<Column> columns(static_cast<std::size_t>(matrix.shape(1)));
  const auto* const data = static_cast<const char*>(matrix.data());
  for (std::size_t c = 0; c < columns.size(); ++c)
    columns[c] = {data + static_cast<std::ptrdiff_t>(c) * matrix.strides(1), matrix.strides(0),
                  type};
  return columns;
}

Column column_of(const char* name, const OptionalArray& vector, std::size_t rows) {
  if (!vector) return {};
  if (vector->ndim() != 1) throw std::invalid_argument(std::string(name) + ": expected a vector");
  require_size(name, *vector, rows);
  return {static_cast<const char*>(vector->data()), vector->strides(0), type_of(name, *vector)};
}

// Runs work(monitor) without the GIL; Ctrl-C stops it.
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

py::array_t<double> moments(const py::array& matrix, std::size_t threads) {
  const auto rows = static_cast<std::size_t>(matrix.ndim() == 2 ? matrix.shape(0) : 0);
  const auto columns = columns_of("matrix", matrix, rows);
  std::vector<ColumnMoments> found;
  attended([&](Monitor& monitor) { found = column_moments(rows, columns, threads, monitor); });
  DoubleArray out({py::ssize_t{5}, static_cast<py::ssize_t>(columns.size())});
  auto view = out.mutable_unchecked<2>();
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const auto i = static_cast<py::ssize_t>(c);
    view(0, i) = found[c].mean;
    view(1, i) = found[c].sd;
    view(2, i) = found[c].smallest;
    view(3, i) = found[c].largest;
    view(4, i) = found[c].finite ? 1.0 : 0.0;
  }
  return out;
}

std::unique_ptr<LogisticRows> make_rows(const py::array& outcome, const py::array& covariates,
                                        const OptionalArray& exposure, const DoubleArray& centre,
                                        const DoubleArray& scale, const OptionalArray& weights,
                                        const OptionalArray& offset, std::size_t threads) {
  if (outcome.ndim() != 1 || outcome.size() == 0)
    throw std::invalid_argument("outcome: expected a vector of at least one row");
  const auto n = static_cast<std::size_t>(outcome.size());
  const Column y = column_of("outcome", outcome, n);
  const auto columns = columns_of("covariates", covariates, n);
  const std::size_t transformed = columns.size() + (exposure ? 1 : 0);
  require_size("centre", centre, transformed);
  require_size("scale", scale, transformed);
  const Column e = column_of("exposure", exposure, n), w = column_of("weights", weights, n),
               o = column_of("offset", offset, n);
  const auto origin = to_vector(centre), factor = to_vector(scale);
  std::unique_ptr<LogisticRows> rows;
  attended([&](Monitor& monitor) {
    rows = std::make_unique<LogisticRows>(n, y, columns, e, origin, factor, w, o, threads, monitor);
  });
  return rows;
}

py::tuple evaluate(const LogisticRows& rows, const DoubleArray& coefficients, bool information,
                   bool plain, const OptionalArray& dosages,
                   const std::vector<std::size_t>& selection, const DoubleArray& centre,
                   const DoubleArray& scale, std::size_t threads) {
  const std::size_t k = rows.coefficients();
  if (coefficients.ndim() != 2 || static_cast<std::size_t>(coefficients.shape(1)) != k)
    throw std::invalid_argument("coefficients: expected a matrix of " + std::to_string(k) +
                                " columns");
  const auto m = static_cast<std::size_t>(coefficients.shape(0));
  std::vector<LogisticPoint> points(m);
  if (dosages) {
    const auto columns = columns_of("dosages", *dosages, rows.rows());
    if (selection.size() != m)
      throw std::invalid_argument("selection: expected " + std::to_string(m) + " columns");
    require_size("centre", centre, m);
    require_size("scale", scale, m);
    for (std::size_t i = 0; i < m; ++i) {
      points[i].exposure = columns.at(selection[i]);
      points[i].centre = centre.data()[i];
      points[i].scale = scale.data()[i];
    }
  } else if (!rows.has_exposure()) {
    throw std::invalid_argument("dosages: expected, as the rows hold no exposure");
  }
  const auto count = static_cast<py::ssize_t>(m), size = static_cast<py::ssize_t>(k);
  const auto squares = information ? count : 0;
  DoubleArray values(count), gradients({count, size}), matrices({squares, size, size});
  std::vector<LogisticSums> sums(m);
  for (std::size_t i = 0; i < m; ++i) {
    points[i].coefficients = coefficients.data() + i * k;
    sums[i].log_likelihood = values.mutable_data() + i;
    sums[i].gradient = gradients.mutable_data() + i * k;
    if (information) sums[i].information = matrices.mutable_data() + i * k * k;
  }
  attended(
      [&](Monitor& monitor) { rows.evaluate(points, sums, information, plain, threads, monitor); });
  if (information)
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t a = 0; a < k; ++a)
        for (std::size_t c = a + 1; c < k; ++c)
          sums[i].information[a * k + c] = sums[i].information[c * k + a];
  return py::make_tuple(values, gradients, matrices);
}

DoubleArray firth_score(const LogisticRows& rows, const DoubleArray& coefficients,
                        const DoubleArray& inverse, std::size_t threads) {
  const std::size_t k = rows.coefficients();
  if (!rows.has_exposure()) throw std::invalid_argument("rows: expected an exposure");
  require_size("coefficients", coefficients, k);
  require_size("inverse", inverse, k * k);
  DoubleArray score(static_cast<py::ssize_t>(k));
  double* const out = score.mutable_data();
  const double *const at = coefficients.data(), *const matrix = inverse.data();
  attended([&](Monitor& monitor) { rows.firth_score(at, matrix, out, threads, monitor); });
  return score;
}

py::tuple score_dosages(const LogisticRows& rows, const DoubleArray& coefficients,
                        const py::array& dosages, std::size_t threads) {
  const std::size_t k = rows.coefficients() - 1;
  require_size("coefficients", coefficients, k);
  const auto columns = columns_of("dosages", dosages, rows.rows());
  const double* const at = coefficients.data();
  std::vector<DosageSums> sums;
  attended([&](Monitor& monitor) { sums = rows.score_dosages(at, columns, threads, monitor); });
  const auto m = static_cast<py::ssize_t>(columns.size()), size = static_cast<py::ssize_t>(k);
  DoubleArray counts({m, py::ssize_t{9}}), scores({m, size + 2}), left_out({m, size + size * size});
  double *count = counts.mutable_data(), *score = scores.mutable_data(),
         *out = left_out.mutable_data();
  for (const DosageSums& s : sums) {
    for (const double value : {s.n, s.cases, s.coded_cases, s.coded_controls, s.other_cases,
                               s.other_controls, s.sum, s.smallest, s.largest})
      *count++ = value;
    for (std::size_t c = 0; c < k; ++c) *score++ = s.cross[c];
    *score++ = s.exposure_information;
    *score++ = s.score;
    for (std::size_t i = 0; i < k + k * k; ++i) *out++ = s.left_out.empty() ? 0.0 : s.left_out[i];
  }
  return py::make_tuple(counts, scores, left_out);
}

}  // namespace

void register_federated(py::module_ module) {
  module.def("column_moments", &moments, py::arg("matrix"), py::arg("threads"));
  py::class_<LogisticRows>(module, "LogisticRows")
      .def(py::init(&make_rows), py::kw_only(), py::arg("outcome"), py::arg("covariates"),
           py::arg("exposure"), py::arg("centre").noconvert(), py::arg("scale").noconvert(),
           py::arg("weights"), py::arg("offset"), py::arg("threads"))
      .def_property_readonly("rows", &LogisticRows::rows)
      .def_property_readonly("bytes", &LogisticRows::bytes)
      .def("evaluate", &evaluate, py::arg("coefficients").noconvert(), py::kw_only(),
           py::arg("information"), py::arg("plain"), py::arg("dosages"), py::arg("selection"),
           py::arg("centre").noconvert(), py::arg("scale").noconvert(), py::arg("threads"))
      .def("firth_score", &firth_score, py::arg("coefficients").noconvert(),
           py::arg("inverse").noconvert(), py::arg("threads"))
      .def("score_dosages", &score_dosages, py::arg("coefficients").noconvert(), py::arg("dosages"),
           py::arg("threads"));
}

}  // namespace mrfast::bindings
