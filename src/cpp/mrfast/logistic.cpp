#include "mrfast/logistic.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

#include "mrfast/dispatch.hpp"
#include "mrfast/small.hpp"
#include "mrfast/vector8.hpp"
#include "mrfast/vector_log.hpp"

namespace mrfast {

namespace {

constexpr std::size_t kRows = 256;      // rows of a block
constexpr std::size_t kMaxChunks = 64;  // partial sums of a pass, a number that fixes the order
constexpr std::size_t kTile = 4;        // columns by columns that are multiplied at once
constexpr std::size_t kAlign = 64 / sizeof(double);

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

double number_at(const Column& column, std::size_t i) {
  const char* const at = column.data + static_cast<std::ptrdiff_t>(i) * column.stride;
  if (column.type == NumberType::kDouble) {
    double value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (column.type == NumberType::kFloat) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  }
  const auto value = static_cast<signed char>(*at);
  return value < 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(value);
}

template <class T>
void copy_numbers(const char* at, std::ptrdiff_t stride, std::size_t count, double* out) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(at) % alignof(T) == 0;
  if (aligned && stride == static_cast<std::ptrdiff_t>(sizeof(T))) {
    const T* const values = reinterpret_cast<const T*>(at);
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<double>(values[i]);
    return;
  }
  for (std::size_t i = 0; i < count; ++i, at += stride) {
    T value;
    std::memcpy(&value, at, sizeof value);
    out[i] = static_cast<double>(value);
  }
}

// Rows [first, first + count) of a column as doubles; missing values of an int8 column as NaN.
void copy_column(const Column& column, std::size_t first, std::size_t count, double* out) {
  const char* const at = column.data + static_cast<std::ptrdiff_t>(first) * column.stride;
  if (column.type == NumberType::kDouble)
    return copy_numbers<double>(at, column.stride, count, out);
  if (column.type == NumberType::kFloat) return copy_numbers<float>(at, column.stride, count, out);
  copy_numbers<signed char>(at, column.stride, count, out);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = out[i] < 0 ? std::numeric_limits<double>::quiet_NaN() : out[i];
}

// Columns of one block of rows.
struct BlockView {
  const double* outcome;
  const double* weights;         // null: none
  const double* offset;          // null: none
  const double* const* columns;  // (K,): ones, covariates, exposure
  std::size_t count;             // rows that are filled, a multiple of eight
  std::size_t coefficients;      // K
};

struct Scratch {
  alignas(64) double residual[kRows];
  alignas(64) double variance[kRows];
  alignas(64) double growth[kRows];  // 1 + exp(-|linear predictor|)
  alignas(64) double linear[kRows];
};

MRFAST_INLINE double sum_of_rows(const double* x, std::size_t count) {
  Vector8 sum = {};
  for (std::size_t r = 0; r < count; r += kLanes) {
    Vector8 v;
    load(x + r, v);
    sum += v;
  }
  return sum_of_lanes(sum);
}

// Linear predictor of a block.
MRFAST_INLINE void predict(const BlockView& view, const double* coefficients, double* linear) {
  for (std::size_t r = 0; r < view.count; r += 2 * kLanes) {  // the arrays hold kRows in any case
    Vector8 first = {}, second = {}, x, b;
    if (view.offset != nullptr) {
      load(view.offset + r, first);
      load(view.offset + r + kLanes, second);
    }
    for (std::size_t c = 0; c < view.coefficients; ++c) {
      const double* const column = view.columns[c] + r;
      fill(coefficients[c], b);
      load(column, x);
      first += b * x;
      load(column + kLanes, x);
      second += b * x;
    }
    store(first, linear + r);
    store(second, linear + r + kLanes);
  }
}

// From the linear predictors to means and variances. What is left of the log likelihood in
// `linear` are its terms without -log(1 + exp(-|linear predictor|)).
MRFAST_INLINE void transform_rows(const double* __restrict outcome, std::size_t count,
                                  Scratch& __restrict s) {
  double* __restrict const linear = s.linear;
  double* __restrict const growth = s.growth;
  double* __restrict const residual = s.residual;
  double* __restrict const variance = s.variance;
  for (std::size_t i = 0; i < count; ++i) {
    const double eta = linear[i], y = outcome[i];
    const double t = fast_exp(-std::fabs(eta));
    const double q = 1.0 / (1.0 + t), tq = t * q;
    const double mean = eta >= 0 ? q : tq, rest = eta >= 0 ? tq : q;
    growth[i] = 1.0 + t;
    residual[i] = y * rest - (1.0 - y) * mean;
    variance[i] = tq * q;
    linear[i] = y * eta - (eta >= 0 ? eta : 0.0);
  }
}

// Case weights; the whole log likelihood is in `linear` afterwards.
MRFAST_INLINE void weigh_rows(const double* __restrict weights, std::size_t count,
                              Scratch& __restrict s) {
  for (std::size_t i = 0; i < count; ++i) {
    const double w = weights[i];
    s.residual[i] *= w;
    s.variance[i] *= w;
    s.linear[i] = w * (s.linear[i] - fast_log(s.growth[i]));
  }
}

// The logarithm of the running product, whose mantissas stay below two.
struct GrowthLog {
  LogProduct product;

  MRFAST_INLINE void add(const double* growth, std::size_t count) {
    for (std::size_t r = 0; r < count; r += kLanes)
      for (std::size_t l = 0; l < kLanes; ++l) product.product[l] *= growth[r + l];
    product.renormalise();
  }
};

// Columns a..a+3 by columns c..c+3, weighted; of a tile on the diagonal the lower triangle only.
template <bool kDiagonal>
MRFAST_INLINE void multiply_tile(const double* const* a, const double* const* c,
                                 const double* variance, std::size_t count, double* out,
                                 std::size_t stride) {
  Vector8 sum[kTile][kTile] = {};
  for (std::size_t r = 0; r < count; r += kLanes) {
    Vector8 v, left[kTile], right[kTile];
    load(variance + r, v);
    for (std::size_t i = 0; i < kTile; ++i) {
      load(a[i] + r, left[i]);
      left[i] = left[i] * v;
      load(c[i] + r, right[i]);
    }
    for (std::size_t i = 0; i < kTile; ++i)
      for (std::size_t j = 0; j < (kDiagonal ? i + 1 : kTile); ++j) sum[i][j] += left[i] * right[j];
  }
  for (std::size_t i = 0; i < kTile; ++i)
    for (std::size_t j = 0; j < (kDiagonal ? i + 1 : kTile); ++j)
      out[i * stride + j] += sum_of_lanes(sum[i][j]);
}

MRFAST_INLINE void add_gradient(const double* const* columns, std::size_t padded,
                                const double* residual, std::size_t count, double* gradient) {
  for (std::size_t c = 0; c < padded; c += kTile) {
    Vector8 sum[kTile] = {};
    for (std::size_t r = 0; r < count; r += kLanes) {
      Vector8 e;
      load(residual + r, e);
      for (std::size_t i = 0; i < kTile; ++i) {
        Vector8 x;
        load(columns[c + i] + r, x);
        sum[i] += x * e;
      }
    }
    for (std::size_t i = 0; i < kTile; ++i) gradient[c + i] += sum_of_lanes(sum[i]);
  }
}

MRFAST_INLINE void add_information(const BlockView& view, std::size_t padded, const Scratch& s,
                                   double* information) {
  for (std::size_t a = 0; a < padded; a += kTile) {
    for (std::size_t c = 0; c < a; c += kTile)
      multiply_tile<false>(view.columns + a, view.columns + c, s.variance, view.count,
                           information + a * padded + c, padded);
    multiply_tile<true>(view.columns + a, view.columns + a, s.variance, view.count,
                        information + a * padded + a, padded);
  }
}

// Adds one block to the sums of one point: log likelihood (without what `logs` gathers), gradient
// (padded) and information (padded by padded, lower tiles; null: not wanted). Plain: only the
// information, of a linear regression with variance 1.
MRFAST_DISPATCH void add_block(const BlockView& view, std::size_t padded,
                               const double* coefficients, double* value, double* gradient,
                               double* information, bool plain, GrowthLog& logs, Scratch& s) {
  if (plain) {
    for (std::size_t i = 0; i < view.count; ++i) {
      s.residual[i] = 0;
      s.variance[i] = view.weights == nullptr ? 1.0 : view.weights[i];
    }
    return add_information(view, padded, s, information);
  }
  predict(view, coefficients, s.linear);
  transform_rows(view.outcome, view.count, s);
  if (view.weights == nullptr)
    logs.add(s.growth, view.count);
  else
    weigh_rows(view.weights, view.count, s);
  *value += sum_of_rows(s.linear, view.count);
  add_gradient(view.columns, padded, s.residual, view.count, gradient);
  if (information != nullptr) add_information(view, padded, s, information);
}

// Leverages of a block's rows, into `linear`; the variances are not yet weighted.
MRFAST_DISPATCH void leverages(const BlockView& view, const double* inverse, Scratch& s) {
  const std::size_t k = view.coefficients;
  for (std::size_t r = 0; r < view.count; r += kLanes) {
    Vector8 total = {}, v, x, b;
    for (std::size_t a = 0; a < k; ++a) {
      Vector8 sum = {};
      for (std::size_t c = 0; c < k; ++c) {
        fill(inverse[a * k + c], b);
        load(view.columns[c] + r, x);
        sum += b * x;
      }
      load(view.columns[a] + r, x);
      total += x * sum;
    }
    load(s.variance + r, v);
    store(total * v, s.linear + r);
  }
}

MRFAST_DISPATCH void add_firth_block(const BlockView& view, std::size_t padded,
                                     const double* coefficients, const double* inverse,
                                     double* score, Scratch& s) {
  predict(view, coefficients, s.linear);
  transform_rows(view.outcome, view.count, s);
  leverages(view, inverse, s);
  for (std::size_t i = 0; i < view.count; ++i) {
    const double mean = view.outcome[i] - s.residual[i];
    s.residual[i] += s.linear[i] * (0.5 - mean);
    if (view.weights != nullptr) s.residual[i] *= view.weights[i];
  }
  add_gradient(view.columns, padded, s.residual, view.count, score);
}

// Residuals and variances of a block, and its columns times the variances.
MRFAST_DISPATCH void weigh_columns(const BlockView& view, const double* coefficients,
                                   double* products, Scratch& s) {
  predict(view, coefficients, s.linear);
  transform_rows(view.outcome, view.count, s);
  for (std::size_t i = 0; i < view.count; ++i)
    if (view.weights != nullptr) {
      s.residual[i] *= view.weights[i];
      s.variance[i] *= view.weights[i];
    }
  for (std::size_t c = 0; c < view.coefficients; ++c)
    for (std::size_t i = 0; i < view.count; ++i)
      products[c * kRows + i] = view.columns[c][i] * s.variance[i];
}

// Sums of the dosages times each of the columns; the information of the dosages.
MRFAST_DISPATCH double score_block(const double* const* factors, std::size_t padded,
                                   const double* variance, const double* dosages, std::size_t count,
                                   double* sums) {
  add_gradient(factors, padded, dosages, count, sums);
  Vector8 sum = {};
  for (std::size_t r = 0; r < count; r += kLanes) {
    Vector8 v, g;
    load(variance + r, v);
    load(dosages + r, g);
    sum += v * g * g;
  }
  return sum_of_lanes(sum);
}

// Counts a block's dosages, puts zero where one is missing and marks those that are not.
MRFAST_DISPATCH void count_block(const double* __restrict outcome, std::size_t count,
                                 double* __restrict dosages, double* __restrict observed,
                                 DosageSums& total) {
  double known[kLanes] = {}, cases[kLanes] = {}, coded[kLanes] = {}, coded_cases[kLanes] = {};
  double other[kLanes] = {}, other_cases[kLanes] = {}, sum[kLanes] = {};
  double smallest[kLanes], largest[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) {
    smallest[l] = std::numeric_limits<double>::infinity();
    largest[l] = -std::numeric_limits<double>::infinity();
  }
  for (std::size_t r = 0; r < count; r += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double g = dosages[r + l], y = outcome[r + l];
      const double seen = g == g ? 1.0 : 0.0;
      const double has_coded = g >= 0.5 ? 1.0 : 0.0, has_other = g < 1.5 ? 1.0 : 0.0;
      known[l] += seen;
      cases[l] += seen * y;
      coded[l] += has_coded;
      coded_cases[l] += has_coded * y;
      other[l] += has_other;
      other_cases[l] += has_other * y;
      smallest[l] = g < smallest[l] ? g : smallest[l];
      largest[l] = g > largest[l] ? g : largest[l];
      observed[r + l] = seen;
      const double value = g == g ? g : 0.0;
      dosages[r + l] = value;
      sum[l] += value;
    }
  for (std::size_t l = 0; l < kLanes; ++l) {
    total.n += known[l];
    total.cases += cases[l];
    total.coded_cases += coded_cases[l];
    total.coded_controls += coded[l] - coded_cases[l];
    total.other_cases += other_cases[l];
    total.other_controls += other[l] - other_cases[l];
    total.sum += sum[l];
    total.smallest = std::min(total.smallest, smallest[l]);
    total.largest = std::max(total.largest, largest[l]);
  }
}

struct Partial {
  double sum = 0, square = 0, smallest = std::numeric_limits<double>::infinity();
  double largest = -std::numeric_limits<double>::infinity();
  bool finite = true;
};

// Values are about to be overwritten: what is missing in the last eight is filled up.
MRFAST_DISPATCH void moments_of_block(double* __restrict values, std::size_t count, double origin,
                                      Partial& total) {
  for (std::size_t i = count; i < round_up(count, kLanes); ++i) values[i] = values[0];
  const double extra = static_cast<double>(round_up(count, kLanes) - count);
  double sum[kLanes] = {}, square[kLanes] = {}, smallest[kLanes], largest[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) smallest[l] = largest[l] = values[0];
  for (std::size_t r = 0; r < count; r += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double d = values[r + l] - origin;
      sum[l] += d;
      square[l] += d * d;
      smallest[l] = values[r + l] < smallest[l] ? values[r + l] : smallest[l];
      largest[l] = values[r + l] > largest[l] ? values[r + l] : largest[l];
    }
  const double d = values[0] - origin;
  double sums = -extra * d, squares = -extra * d * d;
  for (std::size_t l = 0; l < kLanes; ++l) {
    sums += sum[l];
    squares += square[l];
    total.smallest = std::min(total.smallest, smallest[l]);
    total.largest = std::max(total.largest, largest[l]);
  }
  total.finite = total.finite && std::isfinite(squares);  // no NaN goes past a sum
  total.sum += sums;
  total.square += squares;
}

// Takes a point's dosages about their centre, zero where missing; whether any is missing.
MRFAST_DISPATCH bool scale_dosages(double* __restrict dosages, double* __restrict observed,
                                   std::size_t filled, double centre, double scale) {
  double known = 0;
  for (std::size_t i = filled; i < kRows; ++i)
    dosages[i] = std::numeric_limits<double>::quiet_NaN();
  double lanes[kLanes] = {};
  for (std::size_t r = 0; r < kRows; r += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double g = dosages[r + l];
      const double seen = g == g ? 1.0 : 0.0, value = (g - centre) * scale;
      observed[r + l] = seen;
      dosages[r + l] = g == g ? value : 0.0;
      lanes[l] += seen;
    }
  for (const double lane : lanes) known += lane;
  return known < static_cast<double>(filled);
}

}  // namespace

void DosageSums::leave_out(const double* const* columns, std::size_t k, std::size_t row,
                           const double residual, const double variance) {
  if (left_out.empty()) left_out.assign(k + k * k, 0.0);
  for (std::size_t a = 0; a < k; ++a) {
    left_out[a] += residual * columns[a][row];
    const double v = variance * columns[a][row];
    for (std::size_t c = 0; c <= a; ++c) left_out[k + a * k + c] += v * columns[c][row];
  }
}

void DosageSums::add(const DosageSums& o) {
  n += o.n;
  cases += o.cases;
  coded_cases += o.coded_cases;
  coded_controls += o.coded_controls;
  other_cases += o.other_cases;
  other_controls += o.other_controls;
  sum += o.sum;
  smallest = std::min(smallest, o.smallest);
  largest = std::max(largest, o.largest);
  score += o.score;
  exposure_information += o.exposure_information;
  if (cross.size() < o.cross.size()) cross.resize(o.cross.size());
  for (std::size_t i = 0; i < o.cross.size(); ++i) cross[i] += o.cross[i];
  if (left_out.size() < o.left_out.size()) left_out.resize(o.left_out.size());
  for (std::size_t i = 0; i < o.left_out.size(); ++i) left_out[i] += o.left_out[i];
}

std::vector<ColumnMoments> column_moments(std::size_t n, const std::vector<Column>& columns,
                                          std::size_t threads, Monitor& monitor) {
  std::vector<ColumnMoments> moments(columns.size());
  // Rows of a matrix are side by side in memory: all columns of a block at once.
  const std::size_t k = columns.size();
  const std::size_t blocks = (n + kRows - 1) / kRows;
  const std::size_t per_chunk = std::max<std::size_t>(1, (blocks + kMaxChunks - 1) / kMaxChunks);
  const std::size_t chunks = (blocks + per_chunk - 1) / per_chunk;
  std::vector<Partial> partials(chunks * k);
  std::vector<double> origin(k);
  for (std::size_t c = 0; c < k; ++c) origin[c] = n > 0 ? number_at(columns[c], 0) : 0.0;
  parallel_for(chunks, threads, monitor, [&](std::size_t chunk) {
    alignas(64) double values[kRows];
    const std::size_t end = std::min(blocks, (chunk + 1) * per_chunk);
    for (std::size_t b = chunk * per_chunk; b < end; ++b) {
      const std::size_t first = b * kRows, count = std::min(kRows, n - first);
      for (std::size_t c = 0; c < k; ++c) {
        copy_column(columns[c], first, count, values);
        moments_of_block(values, count, origin[c], partials[chunk * k + c]);
      }
    }
    monitor.step(end - chunk * per_chunk);
  });
  for (std::size_t c = 0; c < k; ++c) {
    Partial total;
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
      const Partial& partial = partials[chunk * k + c];
      total.sum += partial.sum;
      total.square += partial.square;
      total.smallest = std::min(total.smallest, partial.smallest);
      total.largest = std::max(total.largest, partial.largest);
      total.finite = total.finite && partial.finite;
    }
    const double rows = static_cast<double>(n);
    const double mean = total.sum / rows;
    const double variance = total.square / rows - mean * mean;
    const bool varies = total.largest > total.smallest;
    moments[c] = {origin[c] + mean, varies ? std::sqrt(std::max(variance, 0.0)) : 0.0,
                  total.smallest, total.largest, total.finite};
  }
  return moments;
}

LogisticRows::LogisticRows(std::size_t n, const Column& outcome,
                           const std::vector<Column>& covariates, const Column& exposure,
                           const std::vector<double>& centre, const std::vector<double>& scale,
                           const Column& weights, const Column& offset, std::size_t threads,
                           Monitor& monitor)
    : n_(n),
      covariates_(covariates.size()),
      blocks_((n + kRows - 1) / kRows),
      exposure_(exposure.data != nullptr),
      weighted_(weights.data != nullptr),
      shifted_(offset.data != nullptr) {
  std::vector<Column> columns{outcome};
  columns.insert(columns.end(), covariates.begin(), covariates.end());
  if (exposure_) columns.push_back(exposure);
  const std::size_t transformed = columns.size() - 1;
  if (weighted_) columns.push_back(weights);
  if (shifted_) columns.push_back(offset);
  stride_ = columns.size() * kRows;
  const std::size_t size = blocks_ * stride_ + kAlign;
  memory_.reset(new double[size]);
  void* start = memory_.get();
  std::size_t space = size * sizeof(double);
  data_ = static_cast<double*>(std::align(64, blocks_ * stride_ * sizeof(double), start, space));
  const std::size_t per_chunk = blocks_per_chunk();
  parallel_for(chunks(), threads, monitor, [&](std::size_t chunk) {
    const std::size_t end = std::min(blocks_, (chunk + 1) * per_chunk);
    for (std::size_t b = chunk * per_chunk; b < end; ++b) {
      const std::size_t first = b * kRows, count = std::min(kRows, n_ - first);
      double* const out = data_ + b * stride_;
      for (std::size_t c = 0; c < columns.size(); ++c) {
        double* const column = out + c * kRows;
        copy_column(columns[c], first, count, column);
        if (c >= 1 && c <= transformed) {
          const double m = centre[c - 1], f = scale[c - 1];
          for (std::size_t i = 0; i < count; ++i) column[i] = (column[i] - m) * f;
        }
        for (std::size_t i = count; i < kRows; ++i) column[i] = 0;
      }
    }
    monitor.step(end - chunk * per_chunk);
  });
}

std::size_t LogisticRows::blocks_per_chunk() const {
  return std::max<std::size_t>(1, (blocks_ + kMaxChunks - 1) / kMaxChunks);
}

std::size_t LogisticRows::chunks() const {
  return (blocks_ + blocks_per_chunk() - 1) / blocks_per_chunk();
}

namespace {

constexpr struct Constants {
  alignas(64) double ones[kRows];
  alignas(64) double zeros[kRows];
  constexpr Constants() : ones{}, zeros{} {
    for (double& one : ones) one = 1;
  }
} kConstants;

}  // namespace

// What a pass keeps for the block at hand.
struct LogisticRows::Cursor {
  Cursor(const LogisticRows& rows, std::size_t padded) : columns(padded, kConstants.zeros), view{} {
    columns[0] = kConstants.ones;
    view.columns = columns.data();
    view.coefficients = rows.coefficients();
  }
  void move(const LogisticRows& rows, std::size_t b) {
    const double* const data = rows.block(b);
    filled = std::min(kRows, rows.n_ - b * kRows);
    view.count = round_up(filled, kLanes);
    view.outcome = data;
    for (std::size_t c = 0; c < rows.covariates_; ++c) columns[1 + c] = data + (1 + c) * kRows;
    const double* next = data + (1 + rows.covariates_) * kRows;
    if (rows.exposure_) {
      columns[rows.covariates_ + 1] = next;
      next += kRows;
    }
    own = nullptr;
    if (rows.weighted_) {
      own = next;
      next += kRows;
    } else if (filled % kLanes != 0) {  // rows that fill up the last eight count nothing
      for (std::size_t i = 0; i < kRows; ++i) filling[i] = i < filled ? 1.0 : 0.0;
      own = filling;
    }
    view.weights = own;
    view.offset = rows.shifted_ ? next : nullptr;
  }
  // Puts a point's exposure in its place.
  void set_exposure(const LogisticPoint& point, std::size_t b) {
    view.weights = own;
    if (point.exposure.data == nullptr) return;
    copy_column(point.exposure, b * kRows, filled, dosages);
    const bool missing = scale_dosages(dosages, observed, filled, point.centre, point.scale);
    if (missing) {
      if (own != nullptr)
        for (std::size_t i = 0; i < view.count; ++i) observed[i] *= own[i];
      view.weights = observed;
    }
    columns[view.coefficients - 1] = dosages;
  }

  alignas(64) double dosages[kRows];
  alignas(64) double observed[kRows];
  alignas(64) double filling[kRows];
  std::vector<const double*> columns;
  BlockView view;
  const double* own = nullptr;  // weights of the rows, whatever the exposure
  std::size_t filled = 0;
};

void LogisticRows::evaluate(const std::vector<LogisticPoint>& points,
                            const std::vector<LogisticSums>& sums, bool information, bool plain,
                            std::size_t threads, Monitor& monitor) const {
  const std::size_t k = coefficients(), padded = round_up(k, kTile), m = points.size();
  const std::size_t square = information ? padded * padded : 0;
  const std::size_t each = 1 + padded + square;  // partial sums of a point
  const std::size_t per_chunk = blocks_per_chunk(), count = chunks();
  std::vector<double> partials(count * m * each, 0.0);
  parallel_for(count, threads, monitor, [&](std::size_t chunk) {
    Scratch scratch;
    Cursor cursor(*this, padded);
    std::vector<GrowthLog> logs(m);
    double* const partial = partials.data() + chunk * m * each;
    const std::size_t end = std::min(blocks_, (chunk + 1) * per_chunk);
    for (std::size_t b = chunk * per_chunk; b < end && !monitor.stopped(); ++b) {
      cursor.move(*this, b);
      for (std::size_t p = 0; p < m; ++p) {
        cursor.set_exposure(points[p], b);
        double* const out = partial + p * each;
        add_block(cursor.view, padded, points[p].coefficients, out, out + 1,
                  information ? out + 1 + padded : nullptr, plain, logs[p], scratch);
      }
      monitor.step();
    }
    for (std::size_t p = 0; p < m; ++p) partial[p * each] -= logs[p].product.log();
  });
  for (std::size_t p = 0; p < m; ++p) {
    const double* const first = partials.data() + p * each;
    const auto total = [&](std::size_t i) {
      ExactSum sum;
      for (std::size_t chunk = 0; chunk < count; ++chunk) sum.add(first[chunk * m * each + i]);
      return sum.value();
    };
    *sums[p].log_likelihood = total(0);
    for (std::size_t c = 0; c < k; ++c) sums[p].gradient[c] = total(1 + c);
    if (!information) continue;
    for (std::size_t a = 0; a < k; ++a)
      for (std::size_t c = 0; c <= a; ++c)
        sums[p].information[a * k + c] = total(1 + padded + a * padded + c);
  }
}

void LogisticRows::firth_score(const double* coefficients_at, const double* inverse, double* score,
                               std::size_t threads, Monitor& monitor) const {
  const std::size_t k = coefficients(), padded = round_up(k, kTile);
  const std::size_t per_chunk = blocks_per_chunk(), count = chunks();
  std::vector<double> partials(count * padded, 0.0);
  parallel_for(count, threads, monitor, [&](std::size_t chunk) {
    Scratch scratch;
    Cursor cursor(*this, padded);
    const std::size_t end = std::min(blocks_, (chunk + 1) * per_chunk);
    for (std::size_t b = chunk * per_chunk; b < end && !monitor.stopped(); ++b) {
      cursor.move(*this, b);
      add_firth_block(cursor.view, padded, coefficients_at, inverse,
                      partials.data() + chunk * padded, scratch);
      monitor.step();
    }
  });
  for (std::size_t c = 0; c < k; ++c) {
    ExactSum sum;
    for (std::size_t chunk = 0; chunk < count; ++chunk) sum.add(partials[chunk * padded + c]);
    score[c] = sum.value();
  }
}

std::vector<DosageSums> LogisticRows::score_dosages(const double* coefficients_at,
                                                    const std::vector<Column>& dosages,
                                                    std::size_t threads, Monitor& monitor) const {
  const std::size_t k = covariates_ + 1, padded = round_up(k + 1, kTile), m = dosages.size();
  const std::size_t per_chunk = blocks_per_chunk(), count = chunks();
  std::vector<DosageSums> partials(count * m);
  parallel_for(count, threads, monitor, [&](std::size_t chunk) {
    Scratch scratch;
    Cursor cursor(*this, round_up(coefficients(), kTile));
    cursor.view.coefficients = k;  // the exposure's coefficient is zero
    // The columns times the variances, and the residuals: to be multiplied by the dosages.
    std::vector<double> memory(k * kRows + kAlign);
    void* start = memory.data();
    std::size_t space = memory.size() * sizeof(double);
    auto* const products =
        static_cast<double*>(std::align(64, k * kRows * sizeof(double), start, space));
    std::vector<const double*> factors(padded, kConstants.zeros);
    for (std::size_t c = 0; c < k; ++c) factors[c] = products + c * kRows;
    factors[k] = scratch.residual;
    std::vector<double> sums(padded);
    const std::size_t end = std::min(blocks_, (chunk + 1) * per_chunk);
    for (std::size_t b = chunk * per_chunk; b < end && !monitor.stopped(); ++b) {
      cursor.move(*this, b);
      weigh_columns(cursor.view, coefficients_at, products, scratch);
      for (std::size_t j = 0; j < m; ++j) {
        DosageSums& total = partials[chunk * m + j];
        copy_column(dosages[j], b * kRows, cursor.filled, cursor.dosages);
        for (std::size_t i = cursor.filled; i < kRows; ++i)
          cursor.dosages[i] = std::numeric_limits<double>::quiet_NaN();
        count_block(cursor.view.outcome, cursor.view.count, cursor.dosages, cursor.observed, total);
        std::fill(sums.begin(), sums.end(), 0.0);
        total.exposure_information += score_block(factors.data(), padded, scratch.variance,
                                                  cursor.dosages, cursor.view.count, sums.data());
        total.cross.resize(k);
        for (std::size_t c = 0; c < k; ++c) total.cross[c] += sums[c];
        total.score += sums[k];
        for (std::size_t i = 0; i < cursor.filled; ++i)
          if (cursor.observed[i] == 0)
            total.leave_out(cursor.columns.data(), k, i, scratch.residual[i], scratch.variance[i]);
      }
      monitor.step();
    }
  });
  std::vector<DosageSums> totals(m);
  for (std::size_t j = 0; j < m; ++j)
    for (std::size_t chunk = 0; chunk < count; ++chunk) totals[j].add(partials[chunk * m + j]);
  return totals;
}

}  // namespace mrfast
