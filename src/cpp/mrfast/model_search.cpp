#include "mrfast/model_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

namespace mrfast {

namespace {

// What flipping one candidate's indicator does to the profile at p: value, gradient and Hessian
// are linear in the candidate's products (a a, a d, d d), a = h1 / sigma_X, d = h2 / sigma_Y.
struct FlipChange {
  Vector<3> value{};
  std::array<Vector<3>, 5> gradient{};
  std::array<std::array<Vector<3>, 5>, 5> hessian{};
  double log_determinant = 0;

  FlipChange(double noise, const Prior& prior, bool in_slab, const Vector<5>& p) {
    const Confounding k(p);
    const double b = p[kEffect];
    Component before{noise, prior.slab_variance, prior.spike_variance, 1};
    Component after{noise, prior.slab_variance, prior.slab_variance, 1};
    if (in_slab) std::swap(before, after);
    log_determinant = component_log_determinant(after, k) - component_log_determinant(before, k);
    for (std::size_t i = 0; i < 3; ++i) {
      const double aa = i == 0, ad = i == 1, dd = i == 2;
      const double g12 = ad - b * aa, e = dd - b * ad;
      const Products unit{aa, ad, dd, g12, e - b * g12, e};
      Evaluation change;
      add_component(after, unit, k, b, 1, change);
      add_component(before, unit, k, b, -1, change);
      value[i] = change.value;
      for (std::size_t r = 0; r < 5; ++r) {
        gradient[r][i] = change.gradient[r];
        for (std::size_t c = 0; c <= r; ++c) hessian[r][c][i] = change.hessian[r][c];
      }
    }
  }
};

}  // namespace

ModelSearch::ModelSearch(const Statistics& statistics, const Prior& prior,
                         std::vector<double> log_odds, EvidenceCache& cache)
    : statistics_(statistics), prior_(prior), log_odds_(std::move(log_odds)), cache_(cache) {}

const EvidenceCache::Entry& ModelSearch::evaluate(const Bits& bits) {
  if (const auto* entry = cache_.find(bits)) return *entry;
  return cache_.insert(bits, scan_evidence(Profile(statistics_, prior_, bits), [this] {
                         return monitor_ != nullptr && monitor_->step(0);
                       }));
}

double ModelSearch::log_prior(const Bits& bits) const {
  double sum = 0;
  for (std::size_t j = 0; j < statistics_.size; ++j)
    if (bit(bits, j)) sum += log_odds_[j];
  return sum;
}

std::vector<double> ModelSearch::predict_neighbours(const EvidenceCache::Entry& entry) const {
  const auto& s = statistics_;
  const std::size_t size = s.size;
  const double here = log_prior(entry.bits);
  std::vector<double> top(size, -std::numeric_limits<double>::infinity()), sum(size, 0.0);
  auto include = [&](std::size_t j, double term) {
    if (term > top[j]) {
      sum[j] = sum[j] * std::exp(top[j] - term) + 1;
      top[j] = term;
    } else {
      sum[j] += std::exp(term - top[j]);
    }
  };
  const Profile profile(s, prior_, entry.bits);
  for (const auto& mode : entry.evidence.modes) {
    if (mode.log_laplace < entry.evidence.log_evidence - 12) continue;
    const auto& p = mode.parameters;
    if (!profile.diagonal()) {
      // Effects follow, the five parameters stay: exact rank-one update of the inner optimum.
      std::vector<double> z(size), v(size);
      profile.pleiotropy_scores(p, z.data(), v.data());
      for (std::size_t j = 0; j < size; ++j) {
        const double added =
            (bit(entry.bits, j) ? -1 : 1) * (prior_.slab_variance - prior_.spike_variance);
        const double grown = std::max(1 + added * v[j], 1e-12);
        include(j, mode.log_laplace + 0.5 * added * z[j] * z[j] / grown - 0.5 * std::log(grown));
      }
      continue;
    }
    const Evaluation ev = profile.evaluate(p);
    Matrix<5> negative;
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t l = 0; l < 5; ++l) negative[i][l] = -ev.hessian[i][l];
    const Cholesky<5> old_factor(negative);
    const double old_log_det = old_factor.log_determinant();
    const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]);
    FlipChange changes[2] = {{s.noise[0], prior_, false, p}, {s.noise[0], prior_, true, p}};
    for (std::size_t j = 0; j < size; ++j) {
      const bool in_slab = bit(entry.bits, j);
      if (!s.uniform_noise) changes[in_slab] = FlipChange(s.noise[j], prior_, in_slab, p);
      const double a = ex * s.h1[j], d = ey * s.h2[j];
      const Vector<3> products{a * a, a * d, d * d};
      Vector<5> gradient;
      Matrix<5> shifted;
      for (std::size_t i = 0; i < 5; ++i) {
        gradient[i] = dot(changes[in_slab].gradient[i], products);
        for (std::size_t l = 0; l <= i; ++l)
          shifted[i][l] = negative[i][l] - dot(changes[in_slab].hessian[i][l], products);
      }
      const Cholesky<5> factor(shifted);
      const bool usable = factor.positive_definite;
      const Vector<5> step = (usable ? factor : old_factor).solve(gradient);
      const double log_det = usable ? factor.log_determinant() - old_log_det : 0;
      include(j, mode.log_laplace + dot(changes[in_slab].value, products) +
                     0.5 * dot(step, gradient) -
                     0.5 * (changes[in_slab].log_determinant + log_det));
    }
  }
  for (std::size_t j = 0; j < size; ++j)
    top[j] += std::log(sum[j]) + here + (bit(entry.bits, j) ? -1 : 1) * log_odds_[j];
  return top;
}

std::vector<Bits> ModelSearch::typical_models(std::size_t most) const {
  // For a level c of confounding bias, each candidate's spike and slab densities with its effects
  // integrated out; the models at the local maxima over c of the sum over both.
  const auto& s = statistics_;
  const std::size_t size = s.size;
  const double rx = 1 / std::sqrt(s.s11), ry = 1 / std::sqrt(s.s221);
  std::vector<double> x(size), y(size), levels;
  std::vector<double> ratios;
  for (std::size_t j = 0; j < size; ++j) {
    x[j] = s.candidate_h1[j] * rx;
    y[j] = (s.candidate_h2[j] - s.slope * s.candidate_h1[j]) * ry;
    if (x[j] != 0) ratios.push_back(-y[j] / x[j]);
  }
  std::sort(ratios.begin(), ratios.end());
  const std::size_t quantiles = std::min<std::size_t>(ratios.size(), 40);
  for (std::size_t q = 0; q < quantiles; ++q)
    levels.push_back(ratios[(2 * q + 1) * ratios.size() / (2 * quantiles)]);
  for (int i = -8; i <= 8; ++i) levels.push_back(0.01 * std::sinh(1.1 * i) + 1e-6);
  std::sort(levels.begin(), levels.end());
  struct Level {
    double value;
    Bits bits;
  };
  std::vector<Level> found;
  for (const double c : levels) {
    const double c2 = c * c, rho = std::abs(c) * std::sqrt(1 + c2);
    Level best{-std::numeric_limits<double>::infinity(), Bits(words(size), 0)};
    for (const double e : {1e-4, 1e-2, 0.2, 1.0, 5.0, 100.0, 1e4}) {
      const double kx2 = c2 + rho * e, ky2 = c2 + rho / e, k1 = 1 + kx2, k2 = k1 + ky2;
      const double g = prior_.slab_variance / k1;
      double value = -(kx2 + ky2) / (2 * prior_.confounding_variance) + 0.5 * std::log(k2);
      Bits bits(words(size), 0);
      for (std::size_t j = 0; j < size; ++j) {
        const double n = s.candidate_noise[j], t = c * x[j] + y[j];
        double density[2];
        for (const int slab : {0, 1}) {
          const double a = (slab ? prior_.slab_variance : prior_.spike_variance) * k1 / k2;
          const double d = n * (n + g * (1 + c2)) + a * (n + g);
          const double q = (n + a) * x[j] * x[j] + n * y[j] * y[j] + g * t * t;
          density[slab] = -0.5 * (std::log(d) + q / d) + (slab ? log_odds_[j] : 0);
        }
        if (density[1] > density[0]) flip(bits, j);
        value += std::max(density[0], density[1]) +
                 std::log1p(std::exp(-std::abs(density[1] - density[0])));
      }
      if (value > best.value) best = {value, std::move(bits)};
    }
    found.push_back(std::move(best));
  }
  std::vector<Level> peaks;
  for (std::size_t i = 0; i < found.size(); ++i)
    if ((i == 0 || found[i].value >= found[i - 1].value) &&
        (i + 1 == found.size() || found[i].value >= found[i + 1].value))
      peaks.push_back(found[i]);
  std::stable_sort(peaks.begin(), peaks.end(),
                   [](const Level& a, const Level& b) { return a.value > b.value; });
  std::vector<Bits> models;
  for (const auto& peak : peaks) {
    if (models.size() == most) break;
    if (std::find(models.begin(), models.end(), peak.bits) == models.end())
      models.push_back(peak.bits);
  }
  return models;
}

const EvidenceCache::Entry* ModelSearch::climb(const Bits& bits, Monitor& monitor) {
  constexpr std::size_t kLook = 4;  // neighbours that are evaluated at least, best predicted first
  const auto* current = &evaluate(bits);
  while (!monitor.step(0)) {
    const auto predicted = predict_neighbours(*current);
    std::vector<std::size_t> order(predicted.size());
    for (std::size_t j = 0; j < order.size(); ++j) order[j] = j;
    const std::size_t look = std::min(order.size(), 4 * kLook);
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(look), order.end(),
                      [&](std::size_t a, std::size_t b) {
                        return predicted[a] != predicted[b] ? predicted[a] > predicted[b] : a < b;
                      });
    const EvidenceCache::Entry* best = nullptr;
    for (std::size_t i = 0; i < look; ++i) {
      if (i >= kLook && best != nullptr && target(*best) > target(*current)) break;
      Bits neighbour = current->bits;
      flip(neighbour, order[i]);
      const auto* entry = &evaluate(neighbour);
      if (best == nullptr || target(*entry) > target(*best)) best = entry;
    }
    if (best == nullptr || !(target(*best) > target(*current))) break;
    current = best;
  }
  return current;
}

// One Markov chain over models.
struct ModelSearch::Chain {
  // Weights of all flips from a model: t / (1 + t), t the predicted ratio of posteriors.
  struct Weights {
    std::vector<double> flip;
    double total = 0, slab = 0, spike = 0;
  };

  ModelSearch& search;
  const SearchOptions& options;
  const std::vector<Bits>& masks;
  Philox random;
  const EvidenceCache::Entry* state;
  double state_target;
  SearchReport report;
  std::unordered_map<std::size_t, std::uint64_t> visits;
  std::unordered_map<std::size_t, Weights> weights;
  std::size_t most_weights;

  Chain(ModelSearch& owner, const SearchOptions& all, const std::vector<Bits>& jumps,
        std::uint64_t stream, const EvidenceCache::Entry* start)
      : search(owner),
        options(all),
        masks(jumps),
        random(all.seed, stream),
        state(start),
        state_target(owner.target(*start)),
        most_weights(
            std::max<std::size_t>(16, (std::size_t{32} << 20) / (8 * owner.statistics_.size))) {}

  const Weights& weights_of(const EvidenceCache::Entry& entry, double entry_target) {
    const auto found = weights.find(entry.index);
    if (found != weights.end()) return found->second;
    Weights w;
    w.flip = search.predict_neighbours(entry);
    for (std::size_t j = 0; j < w.flip.size(); ++j) {
      // Bounded away from zero, so that every neighbour can be reached.
      const double ratio = w.flip[j] - entry_target;
      const double t = std::exp(std::isfinite(ratio) ? std::clamp(ratio, -25.0, 25.0) : -25.0);
      w.flip[j] = t / (1 + t);
      (bit(entry.bits, j) ? w.slab : w.spike) += w.flip[j];
    }
    w.total = w.slab + w.spike;
    return weights[entry.index] = std::move(w);
  }

  // Draws an indicator by weight, among all, the slabs or the spikes.
  std::size_t draw(const Weights& w, int among, double total) {
    double u = random.uniform() * total;
    std::size_t last = 0;
    for (std::size_t j = 0; j < w.flip.size(); ++j) {
      if (among >= 0 && bit(state->bits, j) != (among == 1)) continue;
      last = j;
      u -= w.flip[j];
      if (u < 0) break;
    }
    return last;
  }

  void step() {
    const std::size_t size = search.statistics_.size;
    double u = random.uniform();
    std::size_t move = 0;
    while (move + 1 < kMoves && u >= options.move_probability[move])
      u -= options.move_probability[move++];
    Bits proposal = state->bits;
    std::size_t i = 0, k = 0;
    bool possible = true;
    if (weights.size() > most_weights) weights.clear();
    if (move == kFlip) {
      flip(proposal, i = random.below(size));
    } else if (move == kInformed) {
      const Weights& w = weights_of(*state, state_target);
      flip(proposal, i = draw(w, -1, w.total));
    } else if (move == kSwap) {
      const Weights& w = weights_of(*state, state_target);
      possible = w.slab > 0 && w.spike > 0;
      if (possible) {
        flip(proposal, i = draw(w, 1, w.slab));
        flip(proposal, k = draw(w, 0, w.spike));
      }
    } else {
      possible = !masks.empty();
      if (possible) {
        const Bits& mask = masks[random.below(masks.size())];
        for (std::size_t word = 0; word < mask.size(); ++word) proposal[word] ^= mask[word];
      }
    }
    const double accept = random.uniform();
    ++report.proposed[move];
    if (possible) {
      const auto& entry = search.evaluate(proposal);
      const double entry_target = search.target(entry);
      double log_ratio = entry_target - state_target;
      if ((move == kInformed || move == kSwap) && std::isfinite(entry_target)) {
        const Weights& forward = weights_of(*state, state_target);
        const Weights& back = weights_of(entry, entry_target);
        if (move == kInformed) {
          log_ratio +=
              std::log(back.flip[i] / back.total) - std::log(forward.flip[i] / forward.total);
        } else {
          log_ratio += std::log(back.flip[k] / back.slab) + std::log(back.flip[i] / back.spike) -
                       std::log(forward.flip[i] / forward.slab) -
                       std::log(forward.flip[k] / forward.spike);
        }
      }
      if (accept < std::exp(std::min(log_ratio, 0.0))) {
        state = &entry;
        state_target = entry_target;
        ++report.accepted[move];
      }
    }
    ++visits[state->index];
  }
};

SearchReport ModelSearch::run(const SearchOptions& options, Monitor& monitor) {
  monitor_ = &monitor;
  SearchReport report;
  try {
    report = run_chains(options, monitor);
  } catch (const Interrupted&) {
    report.interrupted = true;
  }
  monitor_ = nullptr;
  return report;
}

SearchReport ModelSearch::run_chains(const SearchOptions& options, Monitor& monitor) {
  const std::size_t size = statistics_.size;
  // Starting models: typical ones, the empty and the full one, each climbed from, best first.
  std::vector<Bits> typical = typical_models(8);
  std::vector<Bits> seeds = typical;
  Bits empty(words(size), 0), full = empty;
  for (std::size_t j = 0; j < size; ++j) flip(full, j);
  seeds.push_back(empty);
  seeds.push_back(full);
  std::vector<const EvidenceCache::Entry*> starts;
  for (const auto& seed : seeds) {
    starts.push_back(&evaluate(seed));
  }
  auto better = [&](const EvidenceCache::Entry* a, const EvidenceCache::Entry* b) {
    const double ta = target(*a), tb = target(*b);
    return ta != tb ? ta > tb : a->bits < b->bits;
  };
  std::stable_sort(starts.begin(), starts.end(), better);
  starts.resize(std::min(starts.size(), std::max<std::size_t>(options.chains, 2)));
  for (auto& start : starts) start = climb(start->bits, monitor);
  std::stable_sort(starts.begin(), starts.end(), better);
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());

  std::vector<Bits> masks;
  std::vector<Bits> ends = typical;
  for (const auto* start : starts) ends.push_back(start->bits);
  for (std::size_t a = 0; a < ends.size(); ++a)
    for (std::size_t b = 0; b < a; ++b) {
      Bits mask = ends[a];
      bool any = false;
      for (std::size_t word = 0; word < mask.size(); ++word) {
        mask[word] ^= ends[b][word];
        any = any || mask[word] != 0;
      }
      if (any && std::find(masks.begin(), masks.end(), mask) == masks.end()) masks.push_back(mask);
    }

  std::vector<Chain> chains;
  chains.reserve(options.chains);
  for (std::size_t i = 0; i < options.chains; ++i)
    chains.emplace_back(*this, options, masks, i, starts[i % starts.size()]);
  if (!monitor.stopped())
    parallel_for(options.chains, options.threads, monitor, [&](std::size_t i) {
      for (std::uint64_t t = 0; t < options.iterations; ++t) {
        chains[i].step();
        if (monitor.step()) return;
      }
    });
  SearchReport report;
  report.interrupted = monitor.stopped();
  report.visits.assign(cache_.size(), 0);
  for (const auto& chain : chains) {
    for (std::size_t m = 0; m < kMoves; ++m) {
      report.proposed[m] += chain.report.proposed[m];
      report.accepted[m] += chain.report.accepted[m];
    }
    for (const auto& [index, count] : chain.visits) report.visits[index] += count;
  }
  return report;
}

}  // namespace mrfast
