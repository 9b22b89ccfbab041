// Posterior of the causal effect under the prior on the identified scale: given the
// hyper-parameters one density of beta, a product over the candidates of scalar spike-and-slab
// mixtures; summed over a table of hyper-parameters and integrated over beta.
//
// All in units of the residual sds: x = h1 / sqrt(S11), y = h2 / sqrt(S22.1), b = beta / eta.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "mrfast/parallel.hpp"
#include "mrfast/slope_prior.hpp"
#include "mrfast/vector_math.hpp"

namespace mrfast {

// Mean of the slab of candidate j: 0, rho a1 sign(x_j), rho a1 x_j / rms(x).
enum class SlabMean : int { kCentred = 0, kSign = 1, kProportional = 2 };

// The table of hyper-parameters. Spike sd a0 and slab sd a1 are in units of sqrt(median n22); the
// slab has variance a0^2 + a1^2. Nodes that differ in pi only follow each other.
struct HyperTable {
  std::vector<SlabMean> mean;                   // (H)
  std::vector<double> a0, a1, rho, pi, weight;  // (H)
  std::size_t size() const { return pi.size(); }
};

// Scaled associations of the candidates with their noise factors.
struct Associations {
  std::vector<double> x, y, n11, n22, n12;  // (J)
  double slope = 0;                         // m / eta
};

// Likelihood of groups of candidates that is added to that of the independent ones.
class ExtraLikelihood {
 public:
  virtual ~ExtraLikelihood() = default;
  // Adds to terms (n, kLanes) the log likelihoods at the effects b (kLanes) under the n given nodes
  // of the table.
  virtual void add(const double* b, const std::size_t* nodes, std::size_t n,
                   double* terms) const = 0;
  // Adds to sums (5, J), for the candidates it holds, the probability of the slab, first and second
  // moment of the pleiotropic effect and of the first-stage effect in the units of y and x,
  // weighted with weights (n, kLanes) of the given nodes at the effects b (kLanes).
  virtual void summarise(const double* b, const std::size_t* nodes, std::size_t n,
                         const double* weights, double* sums) const = 0;
  // Independent associations that tell about the effect as much as these candidates do if all of
  // them are valid: where to look for modes, and how narrow they can be.
  virtual Associations directions() const = 0;
  // Draws, for the candidates it holds, slab, first-stage and pleiotropic effects (J) given the
  // effect b and a node of the table; uniforms (J) and normals (2 J).
  virtual void draw(double b, std::size_t node, const double* uniforms, const double* normals,
                    bool* slab, double* first_stage, double* pleiotropy) const = 0;
};

struct FirstStageVariance {
  double value;      // g
  bool at_boundary;  // the likelihood is largest as g goes to 0
};

// g maximises sum_j log N(x_j; 0, n11_j + g) - log P(|N(0, n11_j + g)| > threshold sqrt(n11_j)),
// the latter over the first `selected` candidates only.
FirstStageVariance first_stage_variance(const std::vector<double>& x,
                                        const std::vector<double>& n11, double threshold,
                                        std::size_t selected = SIZE_MAX);

struct IdentifiedOptions {
  double tolerance = 1e-6;  // relative, of the evidence
  double depth = 23;        // log density below its maximum where the integration ends
  std::size_t max_panels = 600;
  std::size_t threads = 1;
};

inline constexpr std::size_t kPanelNodes = 15;  // of the Kronrod rule

struct EffectLaw {
  std::vector<double> edges;        // (P + 1), of b
  std::vector<double> log_density;  // (P, 15) at the Kronrod nodes, normalised
  double log_evidence = 0;          // without the terms that do not depend on b
  double error = 0;                 // relative error of the evidence, estimated
  std::size_t evaluations = 0;      // effects at which the likelihood was computed
};

struct IdentifiedSummary {
  EffectLaw law;
  std::vector<double> node;         // (K): effects b of the likelihood's own nodes
  std::vector<double> node_weight;  // (K), sum 1
  std::vector<double> hyper;        // (H): their posterior
  // (J) each, in the units of x and y
  std::vector<double> inclusion, first_stage_mean, first_stage_sd, pleiotropy_mean, pleiotropy_sd;
};

class IdentifiedModel {
 public:
  // `independent` marks the candidates of the product; the others belong to `extra`.
  IdentifiedModel(const Associations& data, const HyperTable& table, double g,
                  const std::vector<bool>& independent = {},
                  const ExtraLikelihood* extra = nullptr);
  // Slope of the outcome on the exposure, known up to `sd` (in units of eta).
  void set_slope_prior(const SlopePrior* prior, double sd) {
    slope_prior_ = prior;
    slope_sd_ = sd;
  }

  std::size_t size() const { return size_; }
  std::size_t hyper_size() const { return table_.size(); }
  double unit() const { return unit_; }

  // Log likelihood at effects b (n) for every node of the table: (n, H).
  void log_likelihood(const double* b, std::size_t n, double* out) const;
  // Log of the sum over the table of weight times likelihood: (n).
  std::vector<double> log_marginal(const std::vector<double>& b, std::size_t threads,
                                   Monitor& monitor) const;
  // Log prior density of b: normal with sd effect_sd, and the law of c where the slope is known.
  double log_prior(double b, double effect_sd) const;

  EffectLaw integrate(double effect_sd, const IdentifiedOptions& options, Monitor& monitor) const;
  IdentifiedSummary summarise(double effect_sd, const IdentifiedOptions& options,
                              Monitor& monitor) const;

  // One draw of everything else given the effects b (n): uniforms (n, 1 + J) and normals (n, 2 J)
  // give the node of the table (n), the indicators (n, J), first-stage and pleiotropic effects.
  void draw(const double* b, std::size_t n, const double* uniforms, const double* normals,
            std::int64_t* node, bool* slab, double* first_stage, double* pleiotropy,
            std::size_t threads, Monitor& monitor) const;
  // The same given also the node.
  void draw_given(const double* b, const std::int64_t* node, std::size_t n, const double* uniforms,
                  const double* normals, bool* slab, double* first_stage, double* pleiotropy,
                  std::size_t threads, Monitor& monitor) const;
  // Sums over effects b (n) and nodes of the table, weighted with weights (n, H), of the
  // probability of the slab, first and second moment of the pleiotropic and of the first-stage
  // effect: (5, J).
  std::vector<double> moments(const double* b, const double* weights, std::size_t n,
                              std::size_t threads, Monitor& monitor) const;

 private:
  struct Family {  // nodes that differ in pi only
    SlabMean mean;
    double rho;
    std::size_t first, count;  // nodes
  };
  struct SlabScale {
    double a1;
    std::size_t first, count;  // families
  };
  struct SpikeScale {
    double a0;
    std::size_t first, count;  // slab scales
  };
  // The part of the table that a computation runs over, arranged so that what nodes share is
  // computed once.
  struct Plan {
    std::vector<std::size_t> node;  // indices in the table
    std::vector<double> pi, log_weight;
    std::vector<Family> families;
    std::vector<SlabScale> slab_scales;
    std::vector<SpikeScale> spike_scales;
  };
  struct Workspace;
  struct Panels;
  // Residual of y given x and b: intercept - b gradient, of variance
  // base + steep (b - center)^2, all in units of unit_.
  struct Line {
    double intercept, gradient, base, steep, center;
  };

  Line line_of(const Associations& data, std::size_t j, double g) const;

  Plan make_plan(const std::vector<char>& keep) const;
  Plan scan_plan() const;
  void prepare(const double* b, Workspace& w) const;
  void evaluate(const Plan& plan, const double* b, Workspace& w) const;
  void draw_candidates(double b, std::size_t h, std::size_t lane, const Workspace& w,
                       const double* uniforms, const double* normals, bool* slab,
                       double* first_stage, double* pleiotropy) const;
  void accumulate(const Plan& plan, const double* b, Workspace& w, double* sums) const;
  // Calls use(i, lane, workspace) for every effect b[i] after evaluate().
  template <class Use>
  void for_each(const Plan& plan, const double* b, std::size_t n, std::size_t threads,
                Monitor& monitor, const Use& use) const;
  void run(double effect_sd, const IdentifiedOptions& options, Monitor& monitor, Panels& out) const;
  EffectLaw finish(const Panels& panels, const IdentifiedOptions& options,
                   std::vector<double>* node_weight) const;
  std::vector<double> scan_points(double effect_sd) const;
  double law_of_c(double b) const;
  const double* direction(SlabMean mean) const;

  std::size_t size_;                 // J
  std::size_t lanes_size_;           // kLanes times the number of independent candidates
  std::vector<std::size_t> member_;  // independent candidates
  HyperTable table_;
  Plan everything_;
  const ExtraLikelihood* extra_;

  double unit_;   // sqrt(median n22)
  double slope_;  // m / eta
  // For the scan: information about b if every candidate were valid; ratios y / x freed of the
  // shared noise with their precisions, ascending, of candidates and of the blocks' directions.
  double information_ = 0;
  std::vector<std::array<double, 2>> ratios_;
  double log_normaliser_;  // of the likelihood in units of unit_
  // The lines of the independent candidates.
  std::vector<double> intercept_, gradient_, base_, steep_, center_;
  std::vector<double> sign_, proportional_, zero_;
  std::vector<double> shifts_;  // of b by proportional slabs
  // First stage given x alone: mean g x / (n11 + g) and variance g n11 / (n11 + g).
  std::vector<double> shrunk_, spread_;
  const SlopePrior* slope_prior_ = nullptr;
  double slope_sd_ = 0;
};

}  // namespace mrfast
