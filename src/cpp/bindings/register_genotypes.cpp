#include <algorithm>
#include <limits>
#include <optional>

#include "mrfast/genotypes.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;

void require_packed(const ByteArray& packed, const BoolArray& keep) {
  const auto bytes = (static_cast<std::size_t>(keep.size()) + 3) / 4;
  if (packed.ndim() != 2 || static_cast<std::size_t>(packed.shape(1)) != bytes)
    throw std::invalid_argument("packed: expected rows of one byte per four persons");
}

GenotypePlanes planes_of(const ByteArray& packed, const BoolArray& keep) {
  return {packed.data(), static_cast<std::size_t>(packed.shape(0)),
          static_cast<std::size_t>(keep.size()), keep.data()};
}

IndexArray sums(const ByteArray& packed, const BoolArray& keep) {
  require_packed(packed, keep);
  IndexArray out({packed.shape(0), py::ssize_t{3}});
  std::int64_t* const row = out.mutable_data();
  attended([&](Monitor&) {
    const GenotypePlanes planes = planes_of(packed, keep);
    for (std::size_t v = 0; v < planes.variants(); ++v) {
      row[3 * v] = planes.sums(v).persons;
      row[3 * v + 1] = planes.sums(v).copies;
      row[3 * v + 2] = planes.sums(v).squares;
    }
  });
  return out;
}

DoubleArray correlations(const ByteArray& packed, const BoolArray& keep, std::size_t threads) {
  require_packed(packed, keep);
  DoubleArray out({packed.shape(0), packed.shape(0)});
  double* const matrix = out.mutable_data();
  attended([&](Monitor& monitor) {
    genotype_correlations(planes_of(packed, keep), matrix, threads, monitor);
  });
  return out;
}

// Checks the candidates against each other and against the number of variants.
ClumpProblem problem_of(const IndexArray& offsets, const IndexArray& position,
                        const IndexArray& variant, const IndexArray& order, std::int64_t reach,
                        double r2, std::int64_t variants) {
  const auto n = static_cast<std::size_t>(position.size());
  require_size("variant", variant, n);
  require_size("order", order, n);
  if (offsets.size() < 1 || offsets.data()[0] != 0 ||
      offsets.data()[offsets.size() - 1] != position.size())
    throw std::invalid_argument("offsets: expected to cover the candidates");
  const auto groups = static_cast<std::size_t>(offsets.size()) - 1;
  for (std::size_t g = 0; g < groups; ++g) {
    const std::int64_t from = offsets.data()[g], to = offsets.data()[g + 1];
    if (from > to || from < 0 || to > position.size())
      throw std::invalid_argument("offsets: expected to rise");
    for (std::int64_t k = from; k < to; ++k)
      if (order.data()[k] < from || order.data()[k] >= to)
        throw std::invalid_argument("order: expected candidates of the group");
    if (!std::is_sorted(position.data() + from, position.data() + to))
      throw std::invalid_argument("position: expected to rise within a group");
  }
  for (std::size_t k = 0; k < n; ++k)
    if (variant.data()[k] < 0 || variant.data()[k] >= variants)
      throw std::invalid_argument("variant: expected rows of the genotypes or correlations");
  return {groups, offsets.data(), position.data(), variant.data(), order.data(), reach, r2};
}

py::tuple clump_bits(const ByteArray& packed, const BoolArray& keep, const IndexArray& offsets,
                     const IndexArray& position, const IndexArray& variant, const IndexArray& order,
                     std::int64_t reach, double r2, std::size_t threads) {
  require_packed(packed, keep);
  const ClumpProblem problem =
      problem_of(offsets, position, variant, order, reach, r2, packed.shape(0));
  IndexArray index(position.size());
  DoubleArray r(position.size());
  std::int64_t* const indices = index.mutable_data();
  double* const correlation = r.mutable_data();
  attended([&](Monitor& monitor) {
    clump_by_genotypes(problem, planes_of(packed, keep), indices, correlation, threads, monitor);
  });
  return py::make_tuple(index, r);
}

py::tuple clump_matrix(const std::optional<DoubleArray>& matrix, const IndexArray& offsets,
                       const IndexArray& position, const IndexArray& variant,
                       const IndexArray& order, std::int64_t reach, double r2,
                       std::size_t threads) {
  if (matrix && (matrix->ndim() != 2 || matrix->shape(0) != matrix->shape(1)))
    throw std::invalid_argument("matrix: expected a square matrix");
  const std::int64_t variants =
      matrix ? matrix->shape(0) : std::numeric_limits<std::int64_t>::max();
  const ClumpProblem problem = problem_of(offsets, position, variant, order, reach, r2, variants);
  IndexArray index(position.size());
  DoubleArray r(position.size());
  std::int64_t* const indices = index.mutable_data();
  double* const correlation = r.mutable_data();
  const double* const entries = matrix ? matrix->data() : nullptr;
  attended([&](Monitor& monitor) {
    clump_by_matrix(problem, entries, static_cast<std::size_t>(variants), indices, correlation,
                    threads, monitor);
  });
  return py::make_tuple(index, r);
}

}  // namespace

void register_genotypes(py::module_ module) {
  const auto packed = py::arg("packed").noconvert(), keep = py::arg("keep").noconvert(),
             offsets = py::arg("offsets").noconvert(), position = py::arg("position").noconvert(),
             variant = py::arg("variant").noconvert(), order = py::arg("order").noconvert();
  module.def("sums", &sums, packed, keep);
  module.def("correlations", &correlations, packed, keep, py::kw_only(), py::arg("threads"));
  module.def("clump_by_genotypes", &clump_bits, packed, keep, py::kw_only(), offsets, position,
             variant, order, py::arg("reach"), py::arg("r2"), py::arg("threads"));
  module.def("clump_by_matrix", &clump_matrix, py::arg("matrix").noconvert().none(true),
             py::kw_only(), offsets, position, variant, order, py::arg("reach"), py::arg("r2"),
             py::arg("threads"));
}

}  // namespace mrfast::bindings
