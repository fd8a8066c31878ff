// The passes of contrastive_loss over rows of vectors and of logits, compiled once for each instruction set: RESERVE_ISA
// is its namespace and RESERVE_KERNELS the table of its functions. All functions of this file and its includes are inlined
// or local, so that instruction sets share none.
#include "contrastive_cpu.h"
#include "vectors.h"

namespace reserve {
namespace RESERVE_ISA {

// Columns whose sums are kept in float at a time: 64 KB of a strip's logits with them stay in the L1 and L2 caches.
constexpr int64_t tile = 512;
// Rows that share one load and store of the sums of columns.
constexpr int64_t together = 4;

// Calls body(place, how many lanes count, whether all do) for vectors over [begin, end).
template <typename Body>
static RESERVE_HD void each_vector(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(i, lanes, true);
  if (i < end) body(i, end - i, false);
}

static RESERVE_HD Vector read(const float* from, int64_t count, bool all, float rest) {
  return all ? load(from) : load_first(from, count, rest);
}
static RESERVE_HD void write(float* to, int64_t count, bool all, Vector v) {
  if (all)
    store(to, v);
  else
    store_first(to, count, v);
}

// A row's divisor, so that its squares do not overflow, and 1 / sqrt(sum of squares + epsilon) after it.
struct Norm {
  float divisor;
  float inverse;
};

// A sum over a row, of vectors in float and of tiles in double.
template <typename Term>
static RESERVE_HD double row_sum(int64_t dim, const Term& term) {
  double sum = 0.0;
  for (int64_t begin = 0; begin < dim; begin += tile) {
    Vector part{};
    each_vector(begin, begin + tile < dim ? begin + tile : dim,
                [&](int64_t i, int64_t count, bool all) { part += term(i, count, all); });
    sum += sum_of_lanes(part);
  }
  return sum;
}

static RESERVE_HD Norm norm_of(const reserve_contrastive_scale& p, const float* x) {
  Vector largest{};
  double squares = row_sum(p.dim, [&](int64_t i, int64_t count, bool all) {
    const Vector v = read(x + i, count, all, 0.0f);
    largest = larger(magnitude(v), largest);
    return v * v;
  });
  const float most = largest_lane(largest);
  const float divisor = most > p.limit ? most : 1.0f;
  if (divisor != 1.0f) {
    squares = row_sum(p.dim, [&](int64_t i, int64_t count, bool all) {
      const Vector v = read(x + i, count, all, 0.0f) / splat(divisor);
      return v * v;
    });
  }
  const double epsilon = static_cast<double>(p.epsilon) / divisor / divisor;
  return {divisor, static_cast<float>(1.0 / std::sqrt(squares + epsilon))};
}

// v / divisor, without a division where it is 1.
static RESERVE_HD Vector divided(Vector v, float divisor) { return divisor == 1.0f ? v : v / splat(divisor); }

static void scale(const reserve_contrastive_scale& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = p.x + row * p.dim;
    float* out = p.out + row * p.dim;
    const Norm norm = norm_of(p, x);
    if (p.grad == nullptr) {
      const Vector factor = splat(norm.inverse * p.factor);
      each_vector(0, p.dim, [&](int64_t i, int64_t count, bool all) {
        write(out + i, count, all, divided(read(x + i, count, all, 0.0f), norm.divisor) * factor);
      });
      continue;
    }
    const float* grad = p.grad + row * p.dim;
    const Vector inverse = splat(norm.inverse);
    const double along = row_sum(p.dim, [&](int64_t i, int64_t count, bool all) {
      return read(grad + i, count, all, 0.0f) * (divided(read(x + i, count, all, 0.0f), norm.divisor) * inverse);
    });
    const Vector factor = splat(norm.inverse / norm.divisor * p.factor);
    const Vector part = splat(static_cast<float>(along));
    each_vector(0, p.dim, [&](int64_t i, int64_t count, bool all) {
      const Vector unit = divided(read(x + i, count, all, 0.0f), norm.divisor) * inverse;
      write(out + i, count, all, (read(grad + i, count, all, 0.0f) - unit * part) * factor);
    });
    p.shares[row] = static_cast<float>(along * p.of_factor);
  }
}

// Sums of exp of bounded logits for `count` rows from `row` on, in the columns of a tile.
template <int64_t count>
static RESERVE_HD void bounded_tile(const reserve_contrastive_logsumexp& p, int64_t row, int64_t begin, int64_t end,
                                    double* row_sums, float* sums) {
  float* logits = p.logits + row * p.columns;
  Vector of_rows[count] = {};
  each_vector(begin, end, [&](int64_t j, int64_t valid, bool all) {
    Vector of_column = all ? load(sums + j) : load_first(sums + j, valid, 0.0f);
    for (int64_t k = 0; k < count; ++k) {
      const Vector e = exponential(read(logits + k * p.columns + j, valid, all, -INFINITY));
      if (p.store) write(logits + k * p.columns + j, valid, all, e);
      of_rows[k] += e;
      of_column += e;
    }
    write(sums + j, valid, all, of_column);
  });
  for (int64_t k = 0; k < count; ++k) row_sums[k] += sum_of_lanes(of_rows[k]);
}

// Maxima of `count` rows, added to those in `row_maxima`, and of the columns of a tile.
template <int64_t count>
static RESERVE_HD void maxima_of_tile(const reserve_contrastive_logsumexp& p, int64_t row, int64_t begin, int64_t end,
                                      float* row_maxima, float* maxima) {
  const float* logits = p.logits + row * p.columns;
  Vector of_rows[count];
  for (int64_t k = 0; k < count; ++k) of_rows[k] = splat(row_maxima[k]);
  each_vector(begin, end, [&](int64_t j, int64_t valid, bool all) {
    Vector of_column = read(maxima + j, valid, all, -FLT_MAX);
    for (int64_t k = 0; k < count; ++k) {
      const Vector l = read(logits + k * p.columns + j, valid, all, -FLT_MAX);
      of_rows[k] = larger(l, of_rows[k]);
      of_column = larger(l, of_column);
    }
    write(maxima + j, valid, all, of_column);
  });
  for (int64_t k = 0; k < count; ++k) row_maxima[k] = largest_lane(of_rows[k]);
}

// Sums of exp of logits less the maxima of their rows, their columns or both.
template <int64_t count, bool by_row, bool by_column>
static RESERVE_HD void shifted_tile(const reserve_contrastive_logsumexp& p, int64_t row, int64_t begin, int64_t end,
                                    const float* row_maxima, double* row_sums, const float* maxima, float* sums) {
  const float* logits = p.logits + row * p.columns;
  Vector of_rows[count] = {};
  each_vector(begin, end, [&](int64_t j, int64_t valid, bool all) {
    Vector of_column = read(sums + j, valid, all, 0.0f);
    const Vector highest = read(maxima + j, valid, all, 0.0f);
    for (int64_t k = 0; k < count; ++k) {
      const Vector l = read(logits + k * p.columns + j, valid, all, -INFINITY);
      if (by_row) of_rows[k] += exponential(l - splat(row_maxima[k]));
      if (by_column) of_column += exponential(l - highest);
    }
    if (by_column) write(sums + j, valid, all, of_column);
  });
  for (int64_t k = 0; by_row && k < count; ++k) row_sums[k] += sum_of_lanes(of_rows[k]);
}

// Calls body(row in the strip, constant number of rows, begin, end) for groups of rows in tiles of columns.
template <typename Body>
static RESERVE_HD void each_tile(int64_t rows, int64_t columns, const Body& body) {
  for (int64_t begin = 0; begin < columns; begin += tile) {
    const int64_t end = begin + tile < columns ? begin + tile : columns;
    int64_t row = 0;
    for (; row + together <= rows; row += together) body(row, std::true_type{}, begin, end);
    for (; row < rows; ++row) body(row, std::false_type{}, begin, end);
  }
}

template <bool by_row, bool by_column>
static void logsumexp_of(const reserve_contrastive_logsumexp& p, int64_t first, int64_t end, float* maxima,
                         float* sums) {
  const int64_t rows = end - first;
  double row_sums[contrastive_strip] = {};
  float row_maxima[contrastive_strip];
  for (int64_t row = 0; row < rows; ++row) row_maxima[row] = p.bounded ? 0.0f : -FLT_MAX;
  std::memset(sums, 0, static_cast<size_t>(p.columns) * sizeof(float));
  if (p.bounded) {
    each_tile(rows, p.columns, [&](int64_t row, auto many, int64_t from, int64_t to) {
      bounded_tile<many ? together : 1>(p, first + row, from, to, row_sums + row, sums);
    });
  } else {
    for (int64_t j = 0; j < p.columns; ++j) maxima[j] = -FLT_MAX;
    each_tile(rows, p.columns, [&](int64_t row, auto many, int64_t from, int64_t to) {
      maxima_of_tile<many ? together : 1>(p, first + row, from, to, row_maxima + row, maxima);
    });
    each_tile(rows, p.columns, [&](int64_t row, auto many, int64_t from, int64_t to) {
      shifted_tile<many ? together : 1, by_row, by_column>(p, first + row, from, to, row_maxima + row, row_sums + row,
                                                           maxima, sums);
    });
  }
  for (int64_t row = 0; by_row && row < rows; ++row)
    p.row_lse[first + row] = static_cast<float>(row_maxima[row] + std::log(row_sums[row]));
}

static void logsumexp(const reserve_contrastive_logsumexp& p, int64_t first, int64_t end, float* maxima, float* sums) {
  if (p.diagonal != nullptr)
    for (int64_t row = first; row < end; ++row) p.diagonal[row] = p.logits[row * p.columns + p.first + row];
  if (p.row_lse != nullptr && p.column_sum != nullptr)
    logsumexp_of<true, true>(p, first, end, maxima, sums);
  else if (p.row_lse != nullptr)
    logsumexp_of<true, false>(p, first, end, maxima, sums);
  else
    logsumexp_of<false, true>(p, first, end, maxima, sums);
}

static void merge(const reserve_contrastive_logsumexp& p, int64_t strips, const float* maxima, const float* sums) {
  if (p.bounded) {
    for (int64_t strip = 0; strip < strips; ++strip)
      for (int64_t j = 0; j < p.columns; ++j) p.column_sum[j] += sums[strip * p.columns + j];
    return;
  }
  each_vector(0, p.columns, [&](int64_t j, int64_t count, bool all) {
    const Vector before = read(p.column_max + j, count, all, 0.0f);
    Vector highest = before;
    for (int64_t strip = 0; strip < strips; ++strip)
      highest = larger(read(maxima + strip * p.columns + j, count, all, 0.0f), highest);
    const auto add = [&](Vector of, auto value) {
      const Vector factor = exponential(of - highest);
      for (int64_t k = 0; k < count; ++k) value(k, static_cast<double>(factor[k]));
    };
    add(before, [&](int64_t k, double factor) { p.column_sum[j + k] *= factor; });
    for (int64_t strip = 0; strip < strips; ++strip)
      add(read(maxima + strip * p.columns + j, count, all, 0.0f),
          [&](int64_t k, double factor) { p.column_sum[j + k] += factor * sums[strip * p.columns + j + k]; });
    write(p.column_max + j, count, all, highest);
  });
}

static void factors(const float* gradients, const float* logsumexps, float* out, int64_t count) {
  each_vector(0, count, [&](int64_t j, int64_t valid, bool all) {
    write(out + j, valid, all,
          read(gradients + j, valid, all, 0.0f) * exponential(-read(logsumexps + j, valid, all, 0.0f)));
  });
}

template <bool by_row, bool by_column>
static void weights_of(const reserve_contrastive_weights& p, const float* of_columns, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* logits = p.logits + row * p.columns;
    float* out = p.weights + row * p.columns;
    const float grad = by_row ? p.row_grad[row] : 0.0f, lse = by_row ? p.row_lse[row] : 0.0f;
    if (p.bounded) {
      const Vector of_row = splat(by_row ? grad * exponential(-lse) : 0.0f);
      each_vector(0, p.columns, [&](int64_t j, int64_t count, bool all) {
        Vector factor = of_row;
        if (by_column) factor += read(of_columns + j, count, all, 0.0f);
        Vector e = read(logits + j, count, all, 0.0f);
        if (!p.exponentiated) e = exponential(e);
        write(out + j, count, all, e * factor);
      });
    } else {
      each_vector(0, p.columns, [&](int64_t j, int64_t count, bool all) {
        const Vector l = read(logits + j, count, all, 0.0f);
        Vector weight{};
        if (by_row) weight = exponential(l - splat(lse)) * splat(grad);
        if (by_column)
          weight += exponential(l - read(p.column_lse + j, count, all, 0.0f)) * read(p.column_grad + j, count, all, 0.0f);
        write(out + j, count, all, weight);
      });
    }
    if (p.diagonal_grad != nullptr) out[p.first + row] += p.diagonal_grad[row];
  }
}

static void weights(const reserve_contrastive_weights& p, const float* of_columns, int64_t begin, int64_t end) {
  if (p.row_grad != nullptr && p.column_grad != nullptr)
    weights_of<true, true>(p, of_columns, begin, end);
  else if (p.row_grad != nullptr)
    weights_of<true, false>(p, of_columns, begin, end);
  else
    weights_of<false, true>(p, of_columns, begin, end);
}

}  // namespace RESERVE_ISA

const ContrastiveKernels RESERVE_KERNELS = {RESERVE_ISA::scale, RESERVE_ISA::logsumexp, RESERVE_ISA::merge,
                                            RESERVE_ISA::factors, RESERVE_ISA::weights};

}  // namespace reserve
