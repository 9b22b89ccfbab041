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

// Columns of one row that are not zero.
struct Row {
  const SieveRows& rows;
  const Layout at;
  const std::size_t width;
  const bool has_residual;
  std::size_t exposure_first = 0, residual_first = 0, basis_first = 0;
  double exposure[4], residual[4], basis[4];
  const double* covariates = nullptr;
  std::vector<double> mixed;

  explicit Row(const SieveRows& all)
      : rows(all),
        at(all),
        width(all.basis.width()),
        has_residual(all.residual_spline.intervals > 0),
        mixed(has_residual ? all.interactions.size() : 0) {}

  // Looks at row i; its weight.
  double evaluate(std::size_t i) {
    exposure_first = rows.exposure_spline.local(rows.exposure[i], exposure);
    basis_first = rows.basis.local(rows.instrument[i], basis);
    covariates = rows.covariates + i * rows.q;
    if (has_residual) {
      residual_first = at.residual + rows.residual_spline.local(rows.residual[i], residual);
      if (!mixed.empty()) interactions_of(rows, i, false, mixed.data());
    }
    return rows.weight ? rows.weight[i] : 1.0;
  }

  // out (m, m), upper triangle, += scale times products of the model columns.
  void add_model(double scale, double* out, std::size_t m) const {
    double p[4], s[4];
    const std::size_t q = rows.q, extra = mixed.size();
    for (std::size_t j = 0; j < 4; ++j) p[j] = scale * exposure[j];
    add_four_by_four(out, m, exposure_first, p, exposure_first, exposure);
    if (has_residual) {
      for (std::size_t j = 0; j < 4; ++j) s[j] = scale * residual[j];
      add_four_by_four(out, m, exposure_first, p, residual_first, residual);
      add_four_by_four(out, m, residual_first, s, residual_first, residual);
      add_products(out, m, exposure_first, p, 4, at.interactions, mixed.data(), extra);
      add_products(out, m, residual_first, s, 4, at.interactions, mixed.data(), extra);
      for (std::size_t j = 0; j < extra; ++j) {
        const double value = scale * mixed[j];
        add_products(out, m, at.interactions + j, &value, 1, at.interactions, mixed.data(), extra);
      }
    }
    add_products(out, m, exposure_first, p, 4, at.covariates, covariates, q);
    for (std::size_t j = 0; j < q; ++j) {
      const double value = scale * covariates[j];
      add_products(out, m, at.covariates + j, &value, 1, at.covariates, covariates, q);
      if (!has_residual) continue;
      add_products(out, m, at.covariates + j, &value, 1, residual_first, residual, 4);
      add_products(out, m, at.covariates + j, &value, 1, at.interactions, mixed.data(), extra);
    }
  }

  // out (model columns, instrument columns), rows of `stride`, += scale times their products.
  void add_cross(double scale, double* out, std::size_t stride) const {
    const auto with_instrument = [&](std::size_t first, const double* values, std::size_t count) {
      for (std::size_t j = 0; j < count; ++j) {
        const double value = scale * values[j];
        double* const to = out + (first + j) * stride;
        for (std::size_t l = 0; l < width; ++l) to[basis_first + l] += value * basis[l];
        for (std::size_t l = 0; l < rows.q; ++l) to[at.basis + l] += value * covariates[l];
      }
    };
    with_instrument(exposure_first, exposure, 4);
    with_instrument(at.covariates, covariates, rows.q);
    if (!has_residual) return;
    with_instrument(residual_first, residual, 4);
    with_instrument(at.interactions, mixed.data(), mixed.size());
  }

  // out (instrument columns, the same), upper triangle, += scale times their products.
  void add_instrument(double scale, double* out, std::size_t stride) const {
    for (std::size_t j = 0; j < width; ++j) {
      const double value = scale * basis[j];
      double* const to = out + (basis_first + j) * stride;
      for (std::size_t l = 0; l < width; ++l) to[basis_first + l] += value * basis[l];
      for (std::size_t l = 0; l < rows.q; ++l) to[at.basis + l] += value * covariates[l];
    }
    for (std::size_t j = 0; j < rows.q; ++j) {
      const double value = scale * covariates[j];
      double* const to = out + (at.basis + j) * stride + at.basis;
      for (std::size_t l = 0; l < rows.q; ++l) to[l] += value * covariates[l];
    }
  }

  // out, elements `stride` apart, += scale times the model columns.
  void add_model_column(double scale, double* out, std::size_t stride) const {
    for (std::size_t j = 0; j < 4; ++j) out[(exposure_first + j) * stride] += scale * exposure[j];
    for (std::size_t j = 0; j < rows.q; ++j)
      out[(at.covariates + j) * stride] += scale * covariates[j];
    if (!has_residual) return;
    for (std::size_t j = 0; j < 4; ++j) out[(residual_first + j) * stride] += scale * residual[j];
    for (std::size_t j = 0; j < mixed.size(); ++j)
      out[(at.interactions + j) * stride] += scale * mixed[j];
  }

  // The same for the instrument columns.
  void add_instrument_column(double scale, double* out, std::size_t stride) const {
    for (std::size_t j = 0; j < width; ++j) out[(basis_first + j) * stride] += scale * basis[j];
    for (std::size_t j = 0; j < rows.q; ++j) out[(at.basis + j) * stride] += scale * covariates[j];
  }
};

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
  const std::size_t m = at.model + at.instrument + 1, last = m - 1;
  ordered_sum(rows.n, kChunk, m * m, threads, monitor, out,
              [&](std::size_t begin, std::size_t end, double* sum) {
                Row row(rows);
                for (std::size_t i = begin; i < end; ++i) {
                  const double w = row.evaluate(i), y = rows.outcome[i];
                  row.add_model(w, sum, m);
                  row.add_cross(w, sum + at.model, m);
                  row.add_instrument(w, sum + at.model * (m + 1), m);
                  row.add_model_column(w * y, sum + last, m);
                  row.add_instrument_column(w * y, sum + at.model * m + last, m);
                  sum[last * (m + 1)] += w * y * y;
                }
              });
}

void curve_residuals(const SieveRows& rows, const double* coefficients, std::size_t threads,
                     Monitor& monitor, double* out) {
  const Layout at(rows);
  parallel_for((rows.n + kChunk - 1) / kChunk, threads, monitor, [&](std::size_t c) {
    double p[4];
    for (std::size_t i = c * kChunk; i < std::min(rows.n, (c + 1) * kChunk); ++i) {
      const std::size_t first = rows.exposure_spline.local(rows.exposure[i], p);
      out[i] = rows.outcome[i] - dot(p, coefficients + first, 4) -
               dot(rows.covariates + i * rows.q, coefficients + at.covariates, rows.q);
    }
    monitor.step();
  });
}

void slope_sums(const SieveRows& rows, const double* coefficients, std::size_t threads,
                Monitor& monitor, double* slopes, double* squares) {
  const Layout at(rows);
  const std::size_t m = at.instrument, extra = rows.interactions.size();
  const std::size_t products = (at.model + m) * m, size = products + m + 1;
  std::vector<double> total(size);
  ordered_sum(rows.n, kChunk, size, threads, monitor, total.data(),
              [&](std::size_t begin, std::size_t end, double* sum) {
                Row row(rows);
                double slope[4];
                std::vector<double> mixed_slope(extra);
                for (std::size_t i = begin; i < end; ++i) {
                  const double w = row.evaluate(i), v = rows.residual[i];
                  rows.residual_spline.slopes(v, slope);
                  interactions_of(rows, i, true, mixed_slope.data());
                  const double lambda =
                      dot(slope, coefficients + row.residual_first, 4) +
                      dot(mixed_slope.data(), coefficients + at.interactions, extra);
                  row.add_cross(w * lambda, sum, m);
                  row.add_instrument(w * lambda, sum + at.model * m, m);
                  row.add_instrument_column(w * v * v, sum + products, 1);
                  sum[size - 1] += w * v * v * v * v;
                }
              });
  for (std::size_t a = 0; a < m; ++a)
    for (std::size_t b = 0; b < a; ++b)
      total[(at.model + a) * m + b] = total[(at.model + b) * m + a];
  const auto middle = total.begin() + static_cast<std::ptrdiff_t>(products);
  std::copy(total.begin(), middle, slopes);
  std::copy(middle, total.end(), squares);
}

namespace {

// Residuals of a row and its weight.
struct Errors {
  double w, u, e, v;
};

Errors errors_of(const SieveRows& rows, const Layout& at, const Influence& influence, Row& row,
                 std::size_t i) {
  const double* const theta = influence.coefficients;
  Errors out{row.evaluate(i), 0, 0, 0};
  out.u = rows.outcome[i] - dot(row.exposure, theta + row.exposure_first, 4) -
          dot(row.covariates, theta + at.covariates, rows.q);
  if (!row.has_residual) return out;
  out.v = rows.residual[i];
  out.e = out.u - dot(row.residual, theta + row.residual_first, 4) -
          dot(row.mixed.data(), theta + at.interactions, row.mixed.size()) + influence.offset;
  return out;
}

// out (m, m), upper triangle, += scale (a (k, m))' b (k, k2) c (k2, m), small matrices; a null
// first or last factor is the identity.
void add_mapped(const std::vector<double>& middle, std::size_t rows_of, std::size_t columns_of,
                const double* left, const double* right, std::size_t m, double* out) {
  std::vector<double> half(rows_of * m, 0.0);
  for (std::size_t a = 0; a < rows_of; ++a)
    for (std::size_t b = 0; b < columns_of; ++b) {
      const double value = middle[a * columns_of + b];
      for (std::size_t j = 0; j < m; ++j) half[a * m + j] += value * right[b * m + j];
    }
  if (left == nullptr) {
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < m; ++j) out[i * m + j] += half[i * m + j];
    return;
  }
  for (std::size_t a = 0; a < rows_of; ++a)
    for (std::size_t i = 0; i < m; ++i) {
      const double value = left[a * m + i];
      for (std::size_t j = 0; j < m; ++j) out[i * m + j] += value * half[a * m + j];
    }
}

// Rows each on their own: products of the columns that are not zero, with the six products of
// u, e and v, and the maps afterwards.
void influence_of_rows(const SieveRows& rows, const Influence& influence, std::size_t threads,
                       Monitor& monitor, double* out) {
  const Layout at(rows);
  const std::size_t m = at.model, k = at.instrument;
  const std::size_t cross = m * m, inner = cross + 3 * m * k, size = inner + 6 * k * k;
  std::vector<double> total(size);
  ordered_sum(rows.n, kChunk, size, threads, monitor, total.data(),
              [&](std::size_t begin, std::size_t end, double* sum) {
                Row row(rows);
                for (std::size_t i = begin; i < end; ++i) {
                  const Errors r = errors_of(rows, at, influence, row, i);
                  const double u = r.w * r.u, e = r.w * r.e, v = r.w * r.v;
                  if (row.has_residual) {
                    row.add_model(e * e, sum, m);
                    row.add_cross(e * u, sum + cross, k);
                    row.add_cross(e * e, sum + cross + m * k, k);
                    row.add_cross(e * v, sum + cross + 2 * m * k, k);
                    const double more[5] = {u * e, u * v, e * e, e * v, v * v};
                    for (std::size_t c = 0; c < 5; ++c)
                      row.add_instrument(more[c], sum + inner + (c + 1) * k * k, k);
                  }
                  row.add_instrument(u * u, sum + inner, k);
                }
              });
  const auto part = [&](std::size_t first, std::size_t count) {
    const auto begin = total.begin() + static_cast<std::ptrdiff_t>(first);
    return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(count));
  };
  const double* const maps[3] = {influence.between, influence.within, influence.first_stage};
  std::fill(out, out + m * m, 0.0);
  const double c = influence.within_weight;
  std::vector<double> half(m * m, 0.0);  // terms that come with their transpose
  for (std::size_t a = 0; a < 3; ++a) {
    auto block = part(cross + a * m * k, m * k);
    for (double& value : block) value *= c;
    add_mapped(block, m, k, nullptr, maps[a], m, half.data());
  }
  std::size_t next = inner;
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = a; b < 3; ++b, next += k * k) {
      auto block = part(next, k * k);
      for (std::size_t i = 0; i < k; ++i)
        for (std::size_t j = 0; j < i; ++j) block[i * k + j] = block[j * k + i];
      add_mapped(block, k, k, maps[a], maps[b], m, a == b ? out : half.data());
    }
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = i; j < m; ++j)
      out[i * m + j] += c * c * total[i * m + j] + half[i * m + j] + half[j * m + i];
}

// The influence of a row, added to `to` (model columns,).
void add_influence(const SieveRows& rows, const Layout& at, const Influence& influence, Row& row,
                   std::size_t i, double* to) {
  const Errors r = errors_of(rows, at, influence, row, i);
  const std::size_t m = at.model;
  row.add_model_column(r.w * r.e * influence.within_weight, to, 1);
  const auto with_instrument = [&](std::size_t column, double value) {
    const double scale = r.w * value;
    add_three(influence.between + column * m, influence.within + column * m,
              influence.first_stage + column * m, scale * r.u, scale * r.e, scale * r.v, m, to);
  };
  for (std::size_t j = 0; j < row.width; ++j) with_instrument(row.basis_first + j, row.basis[j]);
  for (std::size_t j = 0; j < rows.q; ++j) with_instrument(at.basis + j, row.covariates[j]);
}

}  // namespace

void influence_gram(const SieveRows& rows, const Influence& influence, const std::int64_t* order,
                    const std::int64_t* starts, std::size_t clusters, std::size_t threads,
                    Monitor& monitor, double* out) {
  if (order == nullptr) {
    influence_of_rows(rows, influence, threads, monitor, out);
    return;
  }
  const Layout at(rows);
  const std::size_t m = at.model;
  ordered_sum(
      rows.n, kChunk, m * m, threads, monitor, out,
      [&](std::size_t begin, std::size_t end, double* sum) {
        // Clusters that begin among these rows.
        const auto below = [&](std::size_t row) {
          return static_cast<std::size_t>(
              std::lower_bound(starts, starts + clusters, static_cast<std::int64_t>(row)) - starts);
        };
        Row row(rows);
        std::vector<double> block(kBlock * m, 0.0);
        std::size_t filled = 0;
        const std::size_t stop = below(end);
        for (std::size_t g = below(begin); g < stop; ++g) {
          for (std::int64_t r = starts[g]; r < starts[g + 1]; ++r)
            add_influence(rows, at, influence, row, static_cast<std::size_t>(order[r]),
                          block.data() + filled * m);
          if (++filled == kBlock) {
            add_block_gram(block.data(), filled, m, sum);
            std::fill(block.begin(), block.end(), 0.0);
            filled = 0;
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

template <class T>
void instrument_products(const ScoreRows<T>& rows, const double* values, std::size_t threads,
                         Monitor& monitor, double* out) {
  ordered_sum(
      rows.n, kChunk, rows.p, threads, monitor, out,
      [&](std::size_t begin, std::size_t end, double* sum) {
        for (std::size_t i = begin; i < end; ++i) {
          const T* const from = rows.instruments + static_cast<std::ptrdiff_t>(i) * rows.row_stride;
          for (std::size_t j = 0; j < rows.p; ++j)
            sum[j] +=
                values[i] *
                (static_cast<double>(from[static_cast<std::ptrdiff_t>(j) * rows.column_stride]) -
                 rows.shift[j]);
        }
      });
}

template void instrument_products(const ScoreRows<std::int8_t>&, const double*, std::size_t,
                                  Monitor&, double*);
template void instrument_products(const ScoreRows<float>&, const double*, std::size_t, Monitor&,
                                  double*);
template void instrument_products(const ScoreRows<double>&, const double*, std::size_t, Monitor&,
                                  double*);
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
