#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "mrfast/pair_matrix.hpp"
#include "mrfast/tails.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using CountArray = py::array_t<std::int32_t, py::array::c_style>;

unsigned methods_of(const std::vector<std::string>& names) {
  unsigned bits = 0;
  for (const std::string& name : names) {
    if (name == "ivw")
      bits |= kPairIvw;
    else if (name == "egger")
      bits |= kPairEgger;
    else if (name == "weighted_median")
      bits |= kPairMedian;
    else if (name == "wald_ratio")
      bits |= kPairWald;
    else
      throw std::invalid_argument("methods: expected ivw, egger, weighted_median or wald_ratio");
  }
  return bits;
}

// The parts one after the other; values become columns. What was copied is let go at once.
py::tuple gathered(std::vector<KeptPairs>& parts, std::size_t columns) {
  std::size_t rows = 0;
  std::vector<std::uint64_t> tested(kPairMethods, 0);
  for (const KeptPairs& part : parts) {
    rows += part.exposure.size();
    for (std::size_t k = 0; k < kPairMethods; ++k) tested[k] += part.tested[k];
  }
  const auto n = static_cast<py::ssize_t>(rows);
  CountArray exposure(n), outcome(n), snps(n);
  DoubleArray values({static_cast<py::ssize_t>(columns), n});
  std::int32_t *const e = exposure.mutable_data(), *const o = outcome.mutable_data(),
                      *const s = snps.mutable_data();
  double* const v = values.mutable_data();
  {
    const py::gil_scoped_release release;
    std::size_t at = 0;
    for (KeptPairs& part : parts) {
      const KeptPairs own = std::move(part);
      const std::size_t size = own.exposure.size();
      std::copy(own.exposure.begin(), own.exposure.end(), e + at);
      std::copy(own.outcome.begin(), own.outcome.end(), o + at);
      std::copy(own.snps.begin(), own.snps.end(), s + at);
      for (std::size_t c = 0; c < columns; ++c)
        for (std::size_t i = 0; i < size; ++i) v[c * rows + at + i] = own.values[i * columns + c];
      at += size;
    }
  }
  return py::make_tuple(exposure, outcome, snps, values, tested);
}

py::object matrix(const DoubleArray& beta, const DoubleArray& se, const IndexArray& starts,
                  const IndexArray& rows, const DoubleArray& bx, const DoubleArray& sx,
                  const std::vector<std::string>& methods, const std::vector<std::string>& deciding,
                  double keep_p, bool leave_one_out, bool single, std::size_t threads) {
  if (beta.ndim() != 2 || beta.shape(1) < 1 || static_cast<std::size_t>(beta.shape(1)) > kWidest)
    throw std::invalid_argument("beta: expected a matrix of 1 to 256 columns");
  if (se.ndim() != 2 || se.shape(0) != beta.shape(0) || se.shape(1) != beta.shape(1))
    throw std::invalid_argument("se: expected the shape of beta");
  if (starts.size() < 1) throw std::invalid_argument("starts: expected at least one element");
  const auto exposures = static_cast<std::size_t>(starts.size() - 1);
  if (exposures > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
    throw std::invalid_argument("starts: expected less than 2^31 exposures");
  require_size("bx", bx, static_cast<std::size_t>(rows.size()));
  require_size("sx", sx, static_cast<std::size_t>(rows.size()));
  const std::int64_t *const start = starts.data(), *const row = rows.data();
  if (start[0] != 0 || start[exposures] != rows.size())
    throw std::invalid_argument("starts: expected 0 first and the number of rows last");
  for (std::size_t e = 0; e < exposures; ++e)
    if (start[e] > start[e + 1]) throw std::invalid_argument("starts: expected ascending numbers");
  for (py::ssize_t k = 0; k < rows.size(); ++k)
    if (row[k] < 0 || row[k] >= beta.shape(0))
      throw std::invalid_argument("rows: expected rows of beta");
  const OutcomeBlock block{static_cast<std::size_t>(beta.shape(0)),
                           static_cast<std::size_t>(beta.shape(1)), beta.data(), se.data()};
  const ExposureLists lists{start, row, bx.data(), exposures};
  const PairPlan plan{
      methods_of(methods), methods_of(deciding), keep_p, leave_one_out, single, sx.data()};
  std::vector<KeptPairs> parts;
  BadEntry bad;
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    bad = pair_matrix(block, lists, plan, parts, threads, monitor);
  }
  attendant.rethrow();
  if (bad.found) return py::make_tuple(bad.snp, bad.outcome);
  return gathered(parts, pair_columns(plan));
}

template <class Tail>
DoubleArray each(const DoubleArray& values, const Tail& tail) {
  DoubleArray out(values.size());
  double* const to = out.mutable_data();
  std::transform(values.data(), values.data() + values.size(), to, tail);
  return out;
}

DoubleArray normal(const DoubleArray& z) { return each(z, normal_p); }
DoubleArray student(const DoubleArray& t, std::size_t df) {
  const Tails tails(df);
  return each(t, [&](double value) { return tails.student(value, df); });
}
DoubleArray chi_square(const DoubleArray& q, std::size_t df) {
  const Tails tails(df);
  return each(q, [&](double value) { return tails.chi_square(value, df); });
}

}  // namespace

void register_matrix(py::module_ module) {
  module.def("pair_matrix", &matrix, py::arg("beta").noconvert(), py::arg("se").noconvert(),
             py::kw_only(), py::arg("starts").noconvert(), py::arg("rows").noconvert(),
             py::arg("bx").noconvert(), py::arg("sx").noconvert(), py::arg("methods"),
             py::arg("deciding"), py::arg("keep_p"), py::arg("leave_one_out"), py::arg("single"),
             py::arg("threads"));
  module.def("normal_p", &normal, py::arg("z").noconvert());
  module.def("student_p", &student, py::arg("t").noconvert(), py::arg("df"));
  module.def("chi_square_p", &chi_square, py::arg("q").noconvert(), py::arg("df"));
}

}  // namespace mrfast::bindings
