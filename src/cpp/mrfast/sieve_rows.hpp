// Sums over rows for penalised splines of an exposure with instruments: the columns of a row are
// evaluated where they are needed, and no matrix with one row a person is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/parallel.hpp"

namespace mrfast {

// Cubic B-splines as polynomials: on interval i, function i + s is
// sum_r pieces[(4 i + s) 4 + r] (x - points[i])^r; straight lines beyond the ends.
struct CubicSpline {
  const double* points = nullptr;  // (intervals + 1,), ascending
  const double* pieces = nullptr;  // (intervals, 4, 4)
  std::size_t intervals = 0;

  std::size_t functions() const { return intervals == 0 ? 0 : intervals + 3; }
  // Number of the first of four functions that are not zero at x, and their values.
  std::size_t local(double x, double* values) const;
  // Their first derivatives.
  std::size_t slopes(double x, double* values) const;
};

// Functions of the instrument: splines, powers 1, z, z^2, or one indicator a level.
struct InstrumentBasis {
  enum class Kind { spline, powers, levels };
  Kind kind = Kind::spline;
  CubicSpline spline;
  const double* levels = nullptr;  // (n_levels,), ascending
  std::size_t n_levels = 0;

  std::size_t functions() const;
  std::size_t width() const;  // values that `local` writes
  std::size_t local(double z, double* values) const;
};

// Column v^power g(z), g = z, z^2 - 1 or a function of a spline of z.
struct Interaction {
  int power;
  int function;  // 0: z, 1: z^2 - 1, 2 + j: function j of the spline
};

// Rows and what their columns are made of: splines of the exposure, covariates, splines of the
// standardised residual, interactions (together "model columns"), functions of the instrument and
// covariates ("instrument columns").
struct SieveRows {
  std::size_t n = 0;
  const double* exposure = nullptr;    // (n,)
  const double* outcome = nullptr;     // (n,)
  const double* instrument = nullptr;  // (n,)
  const double* residual = nullptr;    // (n,): of the first stage, over its standard deviation
  const double* prediction = nullptr;  // (n,): standardised
  const double* covariates = nullptr;  // (n, q), row by row
  std::size_t q = 0;
  const double* weight = nullptr;  // (n,) or null
  CubicSpline exposure_spline;
  CubicSpline residual_spline;    // none: no such columns
  CubicSpline prediction_spline;  // of interactions
  InstrumentBasis basis;
  std::vector<Interaction> interactions;

  std::size_t model_columns() const;
  std::size_t instrument_columns() const;
};

// out (m, m), upper triangle: sums of w r r', r = (instrument columns, exposure).
void first_stage_gram(const SieveRows& rows, std::size_t threads, Monitor& monitor, double* out);

// out_fit (n,): sum of the instrument's functions times coefficients, without covariates;
// out_residual (n,): exposure less all instrument columns times coefficients.
void first_stage_values(const SieveRows& rows, const double* coefficients, std::size_t threads,
                        Monitor& monitor, double* out_fit, double* out_residual);

// out (m, m), upper triangle: sums of w r r', r = (model columns, instrument columns, outcome).
void model_gram(const SieveRows& rows, std::size_t threads, Monitor& monitor, double* out);

// out (n,): outcome less exposure splines and covariates times coefficients (model columns).
void curve_residuals(const SieveRows& rows, const double* coefficients, std::size_t threads,
                     Monitor& monitor, double* out);

// Sums of w lambda'(v, z) r b', r the model and then the instrument columns, b instrument
// columns, of lambda = coefficients
// (model columns) as a function of the standardised residual: slopes (r, instrument columns).
// squares (instrument columns + 1,): sums of w v^2 b, and of w v^4.
void slope_sums(const SieveRows& rows, const double* coefficients, std::size_t threads,
                Monitor& monitor, double* slopes, double* squares);

// What the influence of a row is made of; matrices (instrument columns, model columns).
struct Influence {
  const double* coefficients;  // (model columns,)
  double within_weight;        // of e times the model columns
  double offset;               // added to e
  const double* between;       // times u b
  const double* within;        // times e b
  const double* first_stage;   // times v b
};

// out (m, m), upper triangle: sums of s s', s the sum inside a cluster of
// w (within_weight e r + u between' b + e within' b + v first_stage' b),
// u = outcome - exposure splines and covariates, e = u - other model columns + offset.
// order, starts (clusters + 1,): rows of a cluster one after the other; null: each on its own.
void influence_gram(const SieveRows& rows, const Influence& influence, const std::int64_t* order,
                    const std::int64_t* starts, std::size_t clusters, std::size_t threads,
                    Monitor& monitor, double* out);

// Fold Gram matrices of instruments: for each fold the upper triangle of sums of w r r',
// r = (1, instruments - shift, covariates, exposure), m = 2 + p + q: out (folds, m, m).
template <class T>
struct ScoreRows {
  std::size_t n = 0, p = 0, q = 0, folds = 0;
  const T* instruments = nullptr;  // row i begins at i row_stride, columns column_stride apart
  std::ptrdiff_t row_stride = 0, column_stride = 1;
  const double* shift = nullptr;       // (p,)
  const double* covariates = nullptr;  // (n, q)
  const double* exposure = nullptr;    // (n,)
  const double* weight = nullptr;      // (n,) or null
  const std::uint8_t* fold = nullptr;  // (n,)
};

template <class T>
void fold_grams(const ScoreRows<T>& rows, std::size_t threads, Monitor& monitor, double* out);

// out (n,): (instruments - shift) times the coefficients (folds, p) of the row's fold.
template <class T>
void fold_scores(const ScoreRows<T>& rows, const double* coefficients, std::size_t threads,
                 Monitor& monitor, double* out);

// out (p,): sums of (instruments - shift) times values (n,).
template <class T>
void instrument_products(const ScoreRows<T>& rows, const double* values, std::size_t threads,
                         Monitor& monitor, double* out);

// out (draws,): largest |row . draw| over rows (m, k) of draws (draws, k).
void largest_functional(const double* draws, std::size_t n_draws, const double* rows, std::size_t m,
                        std::size_t k, double* out);

}  // namespace mrfast
