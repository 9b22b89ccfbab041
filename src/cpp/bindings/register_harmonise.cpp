#include <optional>
#include <tuple>

#include "mrfast/harmonise.hpp"
#include "mrfast/parallel.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using CodeArray = py::array_t<std::int32_t, py::array::c_style>;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using ByteArray = py::array_t<std::int8_t, py::array::c_style>;

constexpr std::size_t kBetweenChecks = std::size_t{1} << 16;

// Columns of one table: effect, other, beta, std_error and eaf or None.
struct Columns {
  CodeArray effect, other;
  DoubleArray beta, std_error;
  std::optional<DoubleArray> eaf;

  AlleleColumns view(std::int32_t n_alleles) const {
    const auto n = static_cast<std::size_t>(effect.size());
    require_size("other", other, n);
    require_size("beta", beta, n);
    require_size("std_error", std_error, n);
    if (eaf) require_size("eaf", *eaf, n);
    for (const CodeArray* codes : {&effect, &other})
      for (py::ssize_t i = 0; i < codes->size(); ++i)
        if (codes->data()[i] < -1 || codes->data()[i] >= n_alleles)
          throw std::invalid_argument("effect, other: expected codes of the alleles");
    return {effect.data(), other.data(), beta.data(), std_error.data(),
            eaf ? eaf->data() : nullptr};
  }
};

void require_rows(const char* name, const IndexArray& rows, std::int64_t n) {
  for (py::ssize_t i = 0; i < rows.size(); ++i)
    if (rows.data()[i] < 0 || rows.data()[i] >= n)
      throw std::invalid_argument(std::string(name) + ": expected rows of the table");
}

using Table =
    std::tuple<CodeArray, CodeArray, DoubleArray, DoubleArray, std::optional<DoubleArray>>;

Columns columns_of(const Table& table) {
  return {std::get<0>(table), std::get<1>(table), std::get<2>(table), std::get<3>(table),
          std::get<4>(table)};
}

py::tuple align(const Table& exposure, const Table& outcome, const IndexArray& left,
                const IndexArray& right, const CodeArray& complement, const CodeArray& length,
                const BoolArray& base, const BoolArray& letter, std::int32_t insertion, int action,
                double clear) {
  const auto n = static_cast<std::size_t>(left.size());
  require_size("right", right, n);
  if (complement.size() < 1) throw std::invalid_argument("complement: expected an element");
  const auto n_alleles = static_cast<std::int32_t>(complement.size() - 1);
  const auto n_elements = static_cast<std::size_t>(complement.size());
  require_size("length", length, n_elements);
  require_size("base", base, n_elements);
  require_size("letter", letter, n_elements);
  for (std::int32_t k = 0; k <= n_alleles; ++k)
    if (complement.data()[k] < -1 || complement.data()[k] >= n_alleles)
      throw std::invalid_argument("complement: expected codes of the alleles");
  const Columns sides[2] = {columns_of(exposure), columns_of(outcome)};
  require_rows("left", left, sides[0].effect.size());
  require_rows("right", right, sides[1].effect.size());
  const AlleleColumns a = sides[0].view(n_alleles), b = sides[1].view(n_alleles);
  const AlleleVocabulary alleles{n_alleles,   complement.data(), length.data(),
                                 base.data(), letter.data(),     insertion};
  const AlleleAligner aligner(alleles, a, b, {action, clear});

  const auto rows = static_cast<py::ssize_t>(n);
  CodeArray codes({py::ssize_t{4}, rows});
  ByteArray kinds({py::ssize_t{2}, rows});
  BoolArray flags({py::ssize_t{8}, rows});
  std::int32_t* const code = codes.mutable_data();
  std::int8_t* const kind = kinds.mutable_data();
  bool* const flag = flags.mutable_data();
  const std::int64_t *const from = left.data(), *const to = right.data();
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    for (std::size_t i = 0; i < n; ++i) {
      const AlignedRow row = aligner.row(from[i], to[i]);
      const std::int32_t four[] = {row.exposure[0], row.exposure[1], row.outcome[0],
                                   row.outcome[1]};
      for (std::size_t k = 0; k < 4; ++k) code[k * n + i] = four[k];
      kind[i] = row.alleles;
      kind[n + i] = static_cast<std::int8_t>(row.reason);
      const bool eight[] = {row.negate_exposure, row.negate_outcome, row.swapped, row.flipped,
                            row.palindromic,     row.ambiguous,      row.removed, row.keep};
      for (std::size_t k = 0; k < 8; ++k) flag[k * n + i] = eight[k];
      if (i % kBetweenChecks == 0 && monitor.step()) break;
    }
  }
  attendant.rethrow();
  return py::make_tuple(codes, kinds, flags);
}

}  // namespace

void register_harmonise(py::module_ module) {
  module.def(
      "align_alleles", &align, py::arg("exposure").noconvert(), py::arg("outcome").noconvert(),
      py::kw_only(), py::arg("left").noconvert(), py::arg("right").noconvert(),
      py::arg("complement").noconvert(), py::arg("length").noconvert(), py::arg("base").noconvert(),
      py::arg("letter").noconvert(), py::arg("insertion"), py::arg("action"), py::arg("clear"));
}

}  // namespace mrfast::bindings
