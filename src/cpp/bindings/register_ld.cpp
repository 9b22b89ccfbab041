#include <cmath>
#include <cstdint>

#include "mrfast/ld_blocks.hpp"
#include "mrfast/ld_gibbs.hpp"
#include "mrfast/parallel.hpp"
#include "pybind.hpp"

namespace mrfast::bindings {

namespace {

constexpr std::size_t kChunk = 64;  // nodes that a thread takes at once
constexpr std::size_t kMaxGibbsBlock = 1000;
constexpr std::size_t kMaxBytes = std::size_t{4} << 30;

Block make_block(const DoubleArray& eigenvectors, std::size_t max_size) {
  if (eigenvectors.ndim() != 2 || eigenvectors.shape(0) != eigenvectors.shape(1))
    throw std::invalid_argument("eigenvectors: expected a square matrix");
  Block block{static_cast<std::size_t>(eigenvectors.shape(0)), to_vector(eigenvectors)};
  if (block.size == 0 || block.size > max_size)
    throw std::invalid_argument("eigenvectors: expected 1 to " + std::to_string(max_size) +
                                " candidates, received " + std::to_string(block.size));
  return block;
}

std::vector<BlockNode> make_nodes(const Block& block, const DoubleArray& variances,
                                  const DoubleArray& residuals, const DoubleArray& spike,
                                  const DoubleArray& slab, const DoubleArray& means) {
  const auto count = static_cast<std::size_t>(spike.size());
  require_size("variances", variances, count * block.size);
  require_size("residuals", residuals, count * block.size);
  require_size("slab", slab, count);
  const auto mean_size = static_cast<std::size_t>(means.size());
  const bool shared = mean_size == block.size && means.ndim() == 1;
  if (mean_size > 0 && !shared) require_size("means", means, count * block.size);
  std::vector<BlockNode> nodes(count);
  for (std::size_t i = 0; i < count; ++i) {
    auto& node = nodes[i];
    node.variances = variances.data() + i * block.size;
    node.residuals = residuals.data() + i * block.size;
    if (mean_size > 0) node.means = means.data() + (shared ? 0 : i * block.size);
    node.spike = spike.data()[i];
    node.slab = slab.data()[i];
    if (!(node.spike >= 0) || !(node.slab > node.spike) || !std::isfinite(node.slab))
      throw std::invalid_argument(
          "slab: expected finite variances above the spike's, and those at least 0");
    for (std::size_t k = 0; k < block.size; ++k)
      if (!(node.variances[k] > 0) || !std::isfinite(node.variances[k]))
        throw std::invalid_argument("variances: expected finite numbers above 0");
  }
  return nodes;
}

DoubleArray make_array(std::vector<std::size_t> shape) {
  return DoubleArray(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

// Runs work(first, count) over chunks of the nodes.
template <class Work>
void over_nodes(std::size_t count, std::size_t threads, const Work& work) {
  Attendant attendant{py::none()};
  {
    const py::gil_scoped_release release;  // no Python object is touched inside
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    parallel_for((count + kChunk - 1) / kChunk, threads, monitor, [&](std::size_t chunk) {
      const std::size_t first = chunk * kChunk;
      const std::size_t size = count - first < kChunk ? count - first : kChunk;
      work(first, size);
      monitor.step(size);
    });
  }
  attendant.rethrow();
}

py::tuple enumerate_block(const DoubleArray& eigenvectors, const DoubleArray& variances,
                          const DoubleArray& residuals, const DoubleArray& spike,
                          const DoubleArray& slab, const DoubleArray& means,
                          const DoubleArray& log_odds, bool inclusion, std::size_t threads) {
  const Block block = make_block(eigenvectors, kMaxBlock);
  const auto nodes = make_nodes(block, variances, residuals, spike, slab, means);
  require_size("log_odds", log_odds, block.size);
  const std::size_t n = nodes.size(), b = block.size;
  DoubleArray evidence = make_array({n}), probability = make_array({inclusion ? n : 0, b});
  const double* const odds = log_odds.data();
  double* const z = evidence.mutable_data();
  double* const p = inclusion ? probability.mutable_data() : nullptr;
  over_nodes(n, threads, [&](std::size_t first, std::size_t count) {
    sum_block(block, nodes.data() + first, count, odds, z + first,
              p == nullptr ? nullptr : p + first * b);
  });
  return py::make_tuple(evidence, probability);
}

py::tuple enumerate_by_slabs(const DoubleArray& eigenvectors, const DoubleArray& variances,
                             const DoubleArray& residuals, const DoubleArray& spike,
                             const DoubleArray& slab, const DoubleArray& means, bool inclusion,
                             std::size_t threads) {
  const Block block = make_block(eigenvectors, kMaxBlock);
  const auto nodes = make_nodes(block, variances, residuals, spike, slab, means);
  const std::size_t n = nodes.size(), b = block.size;
  DoubleArray scale = make_array({n}), sums = make_array({n, b + 1});
  DoubleArray inside = make_array({inclusion ? n : 0, b, b + 1});
  double* const s = scale.mutable_data();
  double* const z = sums.mutable_data();
  double* const p = inclusion ? inside.mutable_data() : nullptr;
  over_nodes(n, threads, [&](std::size_t first, std::size_t count) {
    sum_block_by_slabs(block, nodes.data() + first, count, s + first, z + first * (b + 1),
                       p == nullptr ? nullptr : p + first * b * (b + 1));
  });
  return py::make_tuple(scale, sums, inside);
}

py::tuple effects(const DoubleArray& eigenvectors, const DoubleArray& variances,
                  const DoubleArray& residuals, const DoubleArray& spike, const DoubleArray& slab,
                  const DoubleArray& means, const DoubleArray& log_odds, std::size_t threads) {
  const Block block = make_block(eigenvectors, kMaxBlock);
  const auto nodes = make_nodes(block, variances, residuals, spike, slab, means);
  require_size("log_odds", log_odds, block.size);
  const std::size_t n = nodes.size(), b = block.size;
  DoubleArray evidence = make_array({n}), probability = make_array({n, b});
  DoubleArray mean = make_array({n, b}), covariance = make_array({n, b, b});
  const double* const odds = log_odds.data();
  double* const z = evidence.mutable_data();
  double* const p = probability.mutable_data();
  double* const m = mean.mutable_data();
  double* const c = covariance.mutable_data();
  over_nodes(n, threads, [&](std::size_t first, std::size_t count) {
    block_effects(block, nodes.data() + first, count, odds, z + first, p + first * b, m + first * b,
                  c + first * b * b);
  });
  return py::make_tuple(evidence, probability, mean, covariance);
}

void require_finite(const char* name, const DoubleArray& array) {
  for (py::ssize_t i = 0; i < array.size(); ++i)
    if (!std::isfinite(array.data()[i]))
      throw std::invalid_argument(std::string(name) + ": expected finite numbers");
}

DoubleArray by_chain(const std::vector<double>& values, std::size_t chains) {
  return to_array(values.data(), chains, values.size() / chains);
}

py::dict sample(const std::vector<DoubleArray>& eigenvectors,
                const std::vector<DoubleArray>& variances,
                const std::vector<DoubleArray>& residuals, const std::vector<DoubleArray>& means,
                const std::vector<DoubleArray>& log_odds, const DoubleArray& log_weight,
                const DoubleArray& spike, const DoubleArray& slab, const GibbsOptions& options,
                const py::object& progress) {
  NodeTable table;
  table.count = static_cast<std::size_t>(log_weight.size());
  table.log_weight = log_weight.data();
  table.spike = spike.data();
  table.slab = slab.data();
  require_size("spike", spike, table.count);
  const std::size_t blocks = eigenvectors.size();
  if (blocks == 0 || variances.size() != blocks || residuals.size() != blocks ||
      means.size() != blocks || log_odds.size() != blocks)
    throw std::invalid_argument("eigenvectors: expected one array of each kind for every block");
  for (std::size_t i = 0; i < blocks; ++i) {
    GibbsBlock block{make_block(eigenvectors[i], kMaxGibbsBlock), variances[i].data(),
                     residuals[i].data(), nullptr, log_odds[i].data()};
    const std::size_t cells = table.count * block.block.size;
    if (means[i].size() > 0) {
      require_size("means", means[i], cells);
      block.means = means[i].data();
    }
    require_size("log_odds", log_odds[i], cells);
    make_nodes(block.block, variances[i], residuals[i], spike, slab, means[i]);
    require_finite("residuals", residuals[i]);
    require_finite("means", means[i]);
    require_finite("log_odds", log_odds[i]);
    table.blocks.push_back(std::move(block));
  }
  bool some = false;
  for (std::size_t i = 0; i < table.count; ++i) {
    const double w = log_weight.data()[i];
    if (std::isnan(w) || (std::isinf(w) && w > 0))
      throw std::invalid_argument("log_weight: expected numbers below infinity");
    some = some || std::isfinite(w);
  }
  if (!some) throw std::invalid_argument("log_weight: expected one finite number at least");
  if (options.chains == 0 || options.sweeps == 0)
    throw std::invalid_argument("sweeps: expected one chain and one sweep at least");
  if (table.bytes() > kMaxBytes)
    throw std::invalid_argument("log_weight: expected fewer nodes for blocks of this size");
  Attendant attendant(progress);
  GibbsResult result;
  {
    const py::gil_scoped_release release;  // no Python object is touched inside
    Monitor monitor([&](std::uint64_t done) { return attendant(done); });
    result = gibbs(table, options, monitor);
  }
  attendant.rethrow();
  py::dict out;
  out["inclusion"] = by_chain(result.inclusion, options.chains);
  out["node_probability"] = by_chain(result.node_probability, options.chains);
  out["effect_mean"] = by_chain(result.effect_mean, options.chains);
  out["effect_square"] = by_chain(result.effect_square, options.chains);
  out["flip_rate"] = to_array(result.flip_rate.data(), options.chains);
  out["swap_rate"] = to_array(result.swap_rate.data(), options.chains);
  out["log_evidence"] = to_array(result.log_evidence.data(), result.log_evidence.size());
  out["coverage"] = to_array(result.coverage.data(), result.coverage.size());
  out["log_evidence_bound"] = result.log_evidence_bound;
  out["models"] = result.models;
  out["difference"] = result.difference;
  return out;
}

}  // namespace

void register_ld(py::module_ m) {
  m.doc() = "Sums over the models of blocks of correlated candidates.";
  m.attr("max_block") = kMaxBlock;
  m.def("enumerate_block", &enumerate_block, py::arg("eigenvectors").noconvert(),
        py::arg("variances").noconvert(), py::arg("residuals").noconvert(),
        py::arg("spike").noconvert(), py::arg("slab").noconvert(), py::arg("means").noconvert(),
        py::arg("log_odds").noconvert(), py::kw_only(), py::arg("inclusion"), py::arg("threads"),
        "Log evidence and inclusion probabilities at every node.");
  m.def("enumerate_by_slabs", &enumerate_by_slabs, py::arg("eigenvectors").noconvert(),
        py::arg("variances").noconvert(), py::arg("residuals").noconvert(),
        py::arg("spike").noconvert(), py::arg("slab").noconvert(), py::arg("means").noconvert(),
        py::kw_only(), py::arg("inclusion"), py::arg("threads"),
        "Likelihoods summed over the models with k slabs, at every node.");
  m.def("effects", &effects, py::arg("eigenvectors").noconvert(), py::arg("variances").noconvert(),
        py::arg("residuals").noconvert(), py::arg("spike").noconvert(), py::arg("slab").noconvert(),
        py::arg("means").noconvert(), py::arg("log_odds").noconvert(), py::kw_only(),
        py::arg("threads"),
        "Posterior means and covariances of the candidates' effects at every node.");
  m.def(
      "gibbs",
      [](const std::vector<DoubleArray>& eigenvectors, const std::vector<DoubleArray>& variances,
         const std::vector<DoubleArray>& residuals, const std::vector<DoubleArray>& means,
         const std::vector<DoubleArray>& log_odds, const DoubleArray& log_weight,
         const DoubleArray& spike, const DoubleArray& slab, std::size_t chains,
         std::uint64_t sweeps, std::uint64_t burn_in, std::size_t threads, std::uint64_t seed,
         const py::object& progress) {
        return sample(eigenvectors, variances, residuals, means, log_odds, log_weight, spike, slab,
                      {chains, sweeps, burn_in, threads, seed}, progress);
      },
      py::kw_only(), py::arg("eigenvectors"), py::arg("variances"), py::arg("residuals"),
      py::arg("means"), py::arg("log_odds"), py::arg("log_weight").noconvert(),
      py::arg("spike").noconvert(), py::arg("slab").noconvert(), py::arg("chains"),
      py::arg("sweeps"), py::arg("burn_in"), py::arg("threads"), py::arg("seed"),
      py::arg("progress"), "Collapsed Gibbs sampler over models and nodes; see ld_gibbs.hpp.");
}

}  // namespace mrfast::bindings
