#include "mrfast/sieve_rows.hpp"

#include <algorithm>
#include <cmath>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

constexpr std::size_t kChunk = 16384;  // rows whose sums are kept apart
constexpr std::size_t kBlock = 64;     // rows that are multiplied at once

// Adds the sums of fixed chunks in their order, so that threads do not change the bits. A wave of
// chunks at a time bounds the memory.
template <class Work>
void ordered_sum(std::size_t n, std::size_t chunk, std::size_t size, std::size_t threads,
                 Monitor& monitor, double* out, const Work& work) {
  constexpr std::size_t kWave = 64;
  const std::size_t chunks = (n + chunk - 1) / chunk;
  std::fill(out, out + size, 0.0);
  std::vector<double> sums;
  for (std::size_t first = 0; first < chunks && !monitor.stopped(); first += kWave) {
    const std::size_t count = std::min(kWave, chunks - first);
    sums.assign(count * size, 0.0);
    parallel_for(count, threads, monitor, [&](std::size_t c) {
      const std::size_t begin = (first + c) * chunk;
      work(begin, std::min(n, begin + chunk), sums.data() + c * size);
      monitor.step();
    });
    for (std::size_t c = 0; c < count; ++c)
      for (std::size_t i = 0; i < size; ++i) out[i] += sums[c * size + i];
  }
}

// Interval of x among ascending inner points; x at a point belongs to the right of it.
inline std::size_t interval_of(const CubicSpline& spline, double x) {
  std::size_t i = 0;
  for (std::size_t j = 1; j < spline.intervals; ++j) i += x >= spline.points[j] ? 1 : 0;
  return i;
}

// upper[i, j] += a[i] b[j] for segments that begin at columns i0, j0 of a matrix of m columns.
inline void add_products(double* __restrict out, std::size_t m, std::size_t i0, const double* a,
                         std::size_t na, std::size_t j0, const double* b, std::size_t nb) {
  for (std::size_t i = 0; i < na; ++i) {
    double* const row = out + (i0 + i) * m + j0;
    const double value = a[i];
    for (std::size_t j = 0; j < nb; ++j) row[j] += value * b[j];
  }
}

inline void add_four_by_four(double* __restrict out, std::size_t m, std::size_t i0,
                             const double* __restrict a, std::size_t j0,
                             const double* __restrict b) {
  for (std::size_t i = 0; i < 4; ++i) {
    double* const row = out + (i0 + i) * m + j0;
    for (std::size_t j = 0; j < 4; ++j) row[j] += a[i] * b[j];
  }
}

double power_of(double v, int power) {
  double out = 1;
  for (int i = 0; i < power; ++i) out *= v;
  return out;
}

// Values of the interactions, or with `slope` their derivatives in v.
void interactions_of(const SieveRows& rows, std::size_t i, bool slope, double* out) {
  const double v = rows.residual[i], z = rows.prediction[i];
  double spline[4];
  std::size_t first = 0;
  const bool splines = rows.prediction_spline.intervals > 0;
  if (splines) first = rows.prediction_spline.local(z, spline);
  for (std::size_t c = 0; c < rows.interactions.size(); ++c) {
    const Interaction& column = rows.interactions[c];
    double g = 0;
    if (column.function == 0) {
      g = z;
    } else if (column.function == 1) {
      g = z * z - 1;
    } else {
      const std::size_t function = static_cast<std::size_t>(column.function - 2);
      if (function >= first && function < first + 4) g = spline[function - first];
    }
    out[c] =
        slope ? column.power * power_of(v, column.power - 1) * g : power_of(v, column.power) * g;
  }
}

// Where the columns of a row begin.
struct Layout {
  std::size_t covariates, residual, interactions, model, basis, instrument;
  explicit Layout(const SieveRows& rows)
      : covariates(rows.exposure_spline.functions()),
        residual(covariates + rows.q),
        interactions(residual + rows.residual_spline.functions()),
        model(interactions + rows.interactions.size()),
        basis(rows.basis.functions()),
        instrument(basis + rows.q) {}
};

// sum of values times coefficients
inline double dot(const double* a, const double* b, std::size_t n) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// out (m, m), upper triangle, += the sum of block rows (count, m) times themselves.
MRFAST_DISPATCH
void add_block_gram(const double* __restrict block, std::size_t count, std::size_t m,
                    double* __restrict out) {
  for (std::size_t i = 0; i < m; ++i) {
    double* __restrict const row = out + i * m;
    std::size_t r = 0;
    for (; r + 4 <= count; r += 4) {  // four rows at once: a quarter of the stores
      const double* __restrict const b0 = block + r * m;
      const double* __restrict const b1 = b0 + m;
      const double* __restrict const b2 = b1 + m;
      const double* __restrict const b3 = b2 + m;
      const double a0 = b0[i], a1 = b1[i], a2 = b2[i], a3 = b3[i];
      for (std::size_t j = i; j < m; ++j)
        row[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j]);
    }
    for (; r < count; ++r) {
      const double* __restrict const b = block + r * m;
      const double a = b[i];
      for (std::size_t j = i; j < m; ++j) row[j] += a * b[j];
    }
  }
}

// out (m,) += u between + e within + v first, rows of m
MRFAST_DISPATCH
void add_three(const double* __restrict between, const double* __restrict within,
               const double* __restrict first, double u, double e, double v, std::size_t m,
               double* __restrict out) {
  for (std::size_t j = 0; j < m; ++j) out[j] += (u * between[j] + e * within[j]) + v * first[j];
}

}  // namespace

std::size_t CubicSpline::local(double x, double* values) const {
  const double low = points[0], high = points[intervals];
  const double inside = x < low ? low : (x > high ? high : x);
  const std::size_t i = interval_of(*this, inside);
  const double d = inside - points[i];
  const double* const piece = pieces + 16 * i;
  for (std::size_t s = 0; s < 4; ++s) {
    const double* const c = piece + 4 * s;
    values[s] = ((c[3] * d + c[2]) * d + c[1]) * d + c[0];
  }
  if (inside != x)
    for (std::size_t s = 0; s < 4; ++s) {
      const double* const c = piece + 4 * s;
      values[s] += (x - inside) * ((3 * c[3] * d + 2 * c[2]) * d + c[1]);
    }
  return i;
}

std::size_t CubicSpline::slopes(double x, double* values) const {
  const double low = points[0], high = points[intervals];
  const double inside = x < low ? low : (x > high ? high : x);
  const std::size_t i = interval_of(*this, inside);
  const double d = inside - points[i];
  for (std::size_t s = 0; s < 4; ++s) {
    const double* const c = pieces + 16 * i + 4 * s;
    values[s] = (3 * c[3] * d + 2 * c[2]) * d + c[1];
  }
  return i;
}

std::size_t InstrumentBasis::functions() const {
  if (kind == Kind::spline) return spline.functions();
  return kind == Kind::powers ? 3 : n_levels;
}

std::size_t InstrumentBasis::width() const {
  if (kind == Kind::spline) return 4;
  return kind == Kind::powers ? 3 : 1;
}

std::size_t InstrumentBasis::local(double z, double* values) const {
  if (kind == Kind::spline) return spline.local(z, values);
  values[0] = 1;
  if (kind == Kind::powers) {
    values[1] = z;
    values[2] = z * z;
    return 0;
  }
  std::size_t level = 0;
  for (std::size_t j = 1; j < n_levels; ++j) level += z >= levels[j] ? 1 : 0;
  return level;
}

std::size_t SieveRows::model_columns() const { return Layout(*this).model; }
std::size_t SieveRows::instrument_columns() const { return Layout(*this).instrument; }

void first_stage_gram(const SieveRows& rows, std::size_t threads, Monitor& monitor, double* out) {
  const Layout at(rows);
  const std::size_t m = at.instrument + 1, width = rows.basis.width(), q = rows.q;
  ordered_sum(rows.n, kChunk, m * m, threads, monitor, out,
              [&](std::size_t begin, std::size_t end, double* sum) {
                std::vector<double> tail(q + 1), scaled(q + 1);
                double b[4], wb[4];
                for (std::size_t i = begin; i < end; ++i) {
                  const double w = rows.weight ? rows.weight[i] : 1.0;
                  const std::size_t first = rows.basis.local(rows.instrument[i], b);
                  for (std::size_t j = 0; j < width; ++j) wb[j] = w * b[j];
                  for (std::size_t j = 0; j < q; ++j) tail[j] = rows.covariates[i * q + j];
                  tail[q] = rows.exposure[i];
                  for (std::size_t j = 0; j <= q; ++j) scaled[j] = w * tail[j];
                  add_products(sum, m, first, wb, width, first, b, width);
                  add_products(sum, m, first, wb, width, at.basis, tail.data(), q + 1);
                  add_products(sum, m, at.basis, scaled.data(), q + 1, at.basis, tail.data(),
                               q + 1);
                }
              });
}

void first_stage_values(const SieveRows& rows, const double* coefficients, std::size_t threads,
                        Monitor& monitor, double* out_fit, double* out_residual) {
  const std::size_t width = rows.basis.width(), K = rows.basis.functions(), q = rows.q;
  parallel_for((rows.n + kChunk - 1) / kChunk, threads, monitor, [&](std::size_t c) {
    double b[4];
    for (std::size_t i = c * kChunk; i < std::min(rows.n, (c + 1) * kChunk); ++i) {
      const std::size_t first = rows.basis.local(rows.instrument[i], b);
      const double fit = dot(b, coefficients + first, width);
      out_fit[i] = fit;
      out_residual[i] = rows.exposure[i] - fit - dot(rows.covariates + i * q, coefficients + K, q);
    }
    monitor.step();
  });
}

void model_gram(const SieveRows& rows, std::size_t threads, Monitor& monitor, double* out) {
  const Layout at(rows);
  const std::size_t m = at.model + at.instrument + 1, q = rows.q, width = rows.basis.width();
  const std::size_t extra = rows.interactions.size(), last = m - 1;
  const bool residual = rows.residual_spline.intervals > 0;
  ordered_sum(rows.n, kChunk, m * m, threads, monitor, out,
              [&](std::size_t begin, std::size_t end, double* sum) {
                double p[4], wp[4], s[4] = {0, 0, 0, 0}, ws[4], b[4], wb[4];
                std::vector<double> mixed(extra + 1), wmixed(extra + 1), wc(q + 1);
                for (std::size_t i = begin; i < end; ++i) {
                  const double w = rows.weight ? rows.weight[i] : 1.0;
                  const double y = rows.outcome[i];
                  const double* const c = rows.covariates + i * q;
                  const std::size_t p0 = rows.exposure_spline.local(rows.exposure[i], p);
                  const std::size_t b0 = at.model + rows.basis.local(rows.instrument[i], b);
                  for (std::size_t j = 0; j < 4; ++j) wp[j] = w * p[j];
                  for (std::size_t j = 0; j < width; ++j) wb[j] = w * b[j];
                  add_four_by_four(sum, m, p0, wp, p0, p);
                  if (width == 4) {
                    add_four_by_four(sum, m, p0, wp, b0, b);
                    add_four_by_four(sum, m, b0, wb, b0, b);
                  } else {
                    add_products(sum, m, p0, wp, 4, b0, b, width);
                    add_products(sum, m, b0, wb, width, b0, b, width);
                  }
                  for (std::size_t j = 0; j < 4; ++j) sum[(p0 + j) * m + last] += wp[j] * y;
                  for (std::size_t j = 0; j < width; ++j) sum[(b0 + j) * m + last] += wb[j] * y;
                  sum[last * m + last] += w * y * y;
                  std::size_t s0 = 0;
                  if (residual) {
                    s0 = at.residual + rows.residual_spline.local(rows.residual[i], s);
                    for (std::size_t j = 0; j < 4; ++j) ws[j] = w * s[j];
                    add_four_by_four(sum, m, p0, wp, s0, s);
                    add_four_by_four(sum, m, s0, ws, s0, s);
                    add_products(sum, m, s0, ws, 4, b0, b, width);
                    for (std::size_t j = 0; j < 4; ++j) sum[(s0 + j) * m + last] += ws[j] * y;
                    if (extra > 0) {
                      interactions_of(rows, i, false, mixed.data());
                      for (std::size_t j = 0; j < extra; ++j) wmixed[j] = w * mixed[j];
                      add_products(sum, m, p0, wp, 4, at.interactions, mixed.data(), extra);
                      add_products(sum, m, s0, ws, 4, at.interactions, mixed.data(), extra);
                      add_products(sum, m, at.interactions, wmixed.data(), extra, at.interactions,
                                   mixed.data(), extra);
                      add_products(sum, m, at.interactions, wmixed.data(), extra, b0, b, width);
                      for (std::size_t j = 0; j < extra; ++j)
                        sum[(at.interactions + j) * m + last] += wmixed[j] * y;
                    }
                  }
                  if (q > 0) {  // as model columns; the instrument's copy is filled in afterwards
                    for (std::size_t j = 0; j < q; ++j) wc[j] = w * c[j];
                    add_products(sum, m, p0, wp, 4, at.covariates, c, q);
                    add_products(sum, m, at.covariates, wc.data(), q, at.covariates, c, q);
                    add_products(sum, m, at.covariates, wc.data(), q, b0, b, width);
                    if (residual) add_products(sum, m, at.covariates, wc.data(), q, s0, s, 4);
                    if (extra > 0)
                      add_products(sum, m, at.covariates, wc.data(), q, at.interactions,
                                   mixed.data(), extra);
                    for (std::size_t j = 0; j < q; ++j)
                      sum[(at.covariates + j) * m + last] += wc[j] * y;
                  }
                }
              });
  if (q == 0) return;
  // Products with the covariates among the instrument columns are those with the model's.
  const auto element = [&](std::size_t a, std::size_t b) -> double& {
    return a <= b ? out[a * m + b] : out[b * m + a];
  };
  const std::size_t copy = at.model + at.basis;
  for (std::size_t j = 0; j < q; ++j) {
    for (std::size_t a = 0; a < copy; ++a) element(a, copy + j) = element(a, at.covariates + j);
    for (std::size_t k = j; k < q; ++k)
      element(copy + j, copy + k) = element(at.covariates + j, at.covariates + k);
    element(copy + j, last) = element(at.covariates + j, last);
  }
}

void slope_sums(const SieveRows& rows, const double* coefficients, std::size_t threads,
                Monitor& monitor, double* slopes, double* squares) {
  const Layout at(rows);
  const std::size_t m = at.instrument, q = rows.q, width = rows.basis.width();
  const std::size_t extra = rows.interactions.size(), rows_of = at.model + at.basis,
                    size = rows_of * m + m + 1;
  std::vector<double> total(size);
  ordered_sum(rows.n, kChunk, size, threads, monitor, total.data(),
              [&](std::size_t begin, std::size_t end, double* sum) {
                double p[4], s[4], slope[4], b[4];
                std::vector<double> mixed(extra + 1), mixed_slope(extra + 1), scaled(4 + q + extra);
                double* const square = sum + rows_of * m;
                for (std::size_t i = begin; i < end; ++i) {
                  const double w = rows.weight ? rows.weight[i] : 1.0, v = rows.residual[i];
                  const double* const c = rows.covariates + i * q;
                  const std::size_t b0 = rows.basis.local(rows.instrument[i], b);
                  const std::size_t p0 = rows.exposure_spline.local(rows.exposure[i], p);
                  const std::size_t s0 = at.residual + rows.residual_spline.local(v, s);
                  rows.residual_spline.slopes(v, slope);
                  interactions_of(rows, i, false, mixed.data());
                  interactions_of(rows, i, true, mixed_slope.data());
                  const double lambda =
                      w * (dot(slope, coefficients + s0, 4) +
                           dot(mixed_slope.data(), coefficients + at.interactions, extra));
                  const double w2 = w * v * v;
                  const auto with_instrument = [&](std::size_t row0, const double* values,
                                                   std::size_t count) {
                    for (std::size_t j = 0; j < count; ++j) scaled[j] = lambda * values[j];
                    add_products(sum, m, row0, scaled.data(), count, b0, b, width);
                    add_products(sum, m, row0, scaled.data(), count, at.basis, c, q);
                  };
                  with_instrument(p0, p, 4);
                  with_instrument(at.covariates, c, q);
                  with_instrument(s0, s, 4);
                  with_instrument(at.interactions, mixed.data(), extra);
                  with_instrument(at.model + b0, b, width);
                  for (std::size_t j = 0; j < width; ++j) square[b0 + j] += w2 * b[j];
                  for (std::size_t j = 0; j < q; ++j) square[at.basis + j] += w2 * c[j];
                  square[m] += w2 * v * v;
                }
              });
  std::copy(total.begin(), total.begin() + static_cast<std::ptrdiff_t>(rows_of * m), slopes);
  std::copy(total.begin() + static_cast<std::ptrdiff_t>(rows_of * m), total.end(), squares);
}

void influence_gram(const SieveRows& rows, const Influence& influence, const std::int64_t* order,
                    const std::int64_t* starts, std::size_t clusters, std::size_t threads,
                    Monitor& monitor, double* out) {
  const Layout at(rows);
  const std::size_t m = at.model, q = rows.q, width = rows.basis.width();
  const std::size_t extra = rows.interactions.size();
  const bool residual = rows.residual_spline.intervals > 0;
  const double* const theta = influence.coefficients;
  // Adds the influence of a row to `to`.
  const auto add_row = [&](std::size_t i, double* mixed, double* to) {
    double p[4], s[4], b[4];
    const double w = rows.weight ? rows.weight[i] : 1.0;
    const double* const c = rows.covariates + i * q;
    const std::size_t p0 = rows.exposure_spline.local(rows.exposure[i], p);
    const std::size_t b0 = rows.basis.local(rows.instrument[i], b);
    const double u = rows.outcome[i] - dot(p, theta + p0, 4) - dot(c, theta + at.covariates, q);
    double e = 0;
    if (residual) {
      const std::size_t s0 = at.residual + rows.residual_spline.local(rows.residual[i], s);
      interactions_of(rows, i, false, mixed);
      e = u - dot(s, theta + s0, 4) - dot(mixed, theta + at.interactions, extra) + influence.offset;
      const double scale = w * e * influence.within_weight;
      for (std::size_t j = 0; j < 4; ++j) to[p0 + j] += scale * p[j];
      for (std::size_t j = 0; j < q; ++j) to[at.covariates + j] += scale * c[j];
      for (std::size_t j = 0; j < 4; ++j) to[s0 + j] += scale * s[j];
      for (std::size_t j = 0; j < extra; ++j) to[at.interactions + j] += scale * mixed[j];
    }
    const double v = residual ? rows.residual[i] : 0.0;
    const auto with_instrument = [&](std::size_t row, double value) {
      const double scale = w * value;
      add_three(influence.between + row * m, influence.within + row * m,
                influence.first_stage + row * m, scale * u, scale * e, scale * v, m, to);
    };
    for (std::size_t j = 0; j < width; ++j) with_instrument(b0 + j, b[j]);
    for (std::size_t j = 0; j < q; ++j) with_instrument(at.basis + j, c[j]);
  };
  ordered_sum(
      rows.n, kChunk, m * m, threads, monitor, out,
      [&](std::size_t begin, std::size_t end, double* sum) {
        std::vector<double> block(kBlock * m, 0.0), mixed(extra + 1);
        std::size_t filled = 0;
        const auto next = [&] {
          if (++filled < kBlock) return;
          add_block_gram(block.data(), filled, m, sum);
          std::fill(block.begin(), block.end(), 0.0);
          filled = 0;
        };
        if (order == nullptr) {
          for (std::size_t i = begin; i < end; ++i) {
            add_row(i, mixed.data(), block.data() + filled * m);
            next();
          }
        } else {  // clusters that begin among these rows
          const auto below = [&](std::size_t row) {
            return static_cast<std::size_t>(
                std::lower_bound(starts, starts + clusters, static_cast<std::int64_t>(row)) -
                starts);
          };
          const std::size_t stop = below(end);
          for (std::size_t g = below(begin); g < stop; ++g) {
            for (std::int64_t r = starts[g]; r < starts[g + 1]; ++r)
              add_row(static_cast<std::size_t>(order[r]), mixed.data(), block.data() + filled * m);
            next();
          }
        }
        add_block_gram(block.data(), filled, m, sum);
      });
}

template <class T>
void fold_grams(const ScoreRows<T>& rows, std::size_t threads, Monitor& monitor, double* out) {
  const std::size_t p = rows.p, q = rows.q, m = 2 + p + q, size = rows.folds * m * m;
  // Large matrices: fewer sums that are kept apart.
  const std::size_t chunk = std::max(kChunk, rows.n / std::max<std::size_t>(1, 8000000 / size) + 1);
  ordered_sum(
      rows.n, chunk, size, threads, monitor, out,
      [&](std::size_t begin, std::size_t end, double* sum) {
        std::vector<double> blocks(rows.folds * kBlock * m);
        std::vector<std::size_t> filled(rows.folds, 0);
        for (std::size_t i = begin; i < end; ++i) {
          const std::size_t f = rows.fold[i];
          double* const to = blocks.data() + (f * kBlock + filled[f]) * m;
          const double root = rows.weight ? std::sqrt(rows.weight[i]) : 1.0;
          const T* const from = rows.instruments + static_cast<std::ptrdiff_t>(i) * rows.row_stride;
          to[0] = root;
          for (std::size_t j = 0; j < p; ++j)
            to[1 + j] =
                root *
                (static_cast<double>(from[static_cast<std::ptrdiff_t>(j) * rows.column_stride]) -
                 rows.shift[j]);
          for (std::size_t j = 0; j < q; ++j) to[1 + p + j] = root * rows.covariates[i * q + j];
          to[m - 1] = root * rows.exposure[i];
          if (++filled[f] == kBlock) {
            add_block_gram(blocks.data() + f * kBlock * m, kBlock, m, sum + f * m * m);
            filled[f] = 0;
            monitor.step(0);
            if (monitor.stopped()) return;
          }
        }
        for (std::size_t f = 0; f < rows.folds; ++f)
          add_block_gram(blocks.data() + f * kBlock * m, filled[f], m, sum + f * m * m);
      });
}

template <class T>
void fold_scores(const ScoreRows<T>& rows, const double* coefficients, std::size_t threads,
                 Monitor& monitor, double* out) {
  parallel_for((rows.n + kChunk - 1) / kChunk, threads, monitor, [&](std::size_t c) {
    for (std::size_t i = c * kChunk; i < std::min(rows.n, (c + 1) * kChunk); ++i) {
      const T* const from = rows.instruments + static_cast<std::ptrdiff_t>(i) * rows.row_stride;
      const double* const b = coefficients + rows.fold[i] * rows.p;
      double sum = 0;
      for (std::size_t j = 0; j < rows.p; ++j)
        sum +=
            b[j] * (static_cast<double>(from[static_cast<std::ptrdiff_t>(j) * rows.column_stride]) -
                    rows.shift[j]);
      out[i] = sum;
    }
    monitor.step();
  });
}

template void fold_grams(const ScoreRows<std::int8_t>&, std::size_t, Monitor&, double*);
template void fold_grams(const ScoreRows<float>&, std::size_t, Monitor&, double*);
template void fold_grams(const ScoreRows<double>&, std::size_t, Monitor&, double*);
template void fold_scores(const ScoreRows<std::int8_t>&, const double*, std::size_t, Monitor&,
                          double*);
template void fold_scores(const ScoreRows<float>&, const double*, std::size_t, Monitor&, double*);
template void fold_scores(const ScoreRows<double>&, const double*, std::size_t, Monitor&, double*);

namespace {

// largest (kBlock,) = max over rows of |row . draw|; draws (k, kBlock) by columns.
MRFAST_DISPATCH
void largest_of_block(const double* __restrict draws, const double* __restrict rows, std::size_t m,
                      std::size_t k, double* __restrict largest) {
  double sum[kBlock];
  for (std::size_t r = 0; r < m; ++r) {
    const double* const row = rows + r * k;
    for (std::size_t l = 0; l < kBlock; ++l) sum[l] = 0;
    for (std::size_t j = 0; j < k; ++j) {
      const double value = row[j];
      for (std::size_t l = 0; l < kBlock; ++l) sum[l] += value * draws[j * kBlock + l];
    }
    for (std::size_t l = 0; l < kBlock; ++l) {
      const double size = std::fabs(sum[l]);
      largest[l] = size > largest[l] ? size : largest[l];
    }
  }
}

}  // namespace

void largest_functional(const double* draws, std::size_t n_draws, const double* rows, std::size_t m,
                        std::size_t k, double* out) {
  std::vector<double> block(k * kBlock), largest(kBlock);
  for (std::size_t first = 0; first < n_draws; first += kBlock) {
    const std::size_t count = std::min(kBlock, n_draws - first);
    std::fill(block.begin(), block.end(), 0.0);
    std::fill(largest.begin(), largest.end(), 0.0);
    for (std::size_t l = 0; l < count; ++l)
      for (std::size_t j = 0; j < k; ++j) block[j * kBlock + l] = draws[(first + l) * k + j];
    largest_of_block(block.data(), rows, m, k, largest.data());
    std::copy(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(count), out + first);
  }
}

}  // namespace mrfast
