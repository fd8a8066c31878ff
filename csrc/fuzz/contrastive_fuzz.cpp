// Feeds the passes of contrastive_loss random problems, to be run under AddressSanitizer and UndefinedBehaviorSanitizer:
//   contrastive_fuzz SECONDS [SEED]
// Numbers are any bits, NaN and infinity included; every buffer is exactly as long as the interface asks for. Each
// instruction set must agree with the formula in double; a disagreement ends the run.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "fuzz_loop.h"
#include "random_input.h"
#include "reserve_native.h"

namespace {

using reserve_fuzz::exactly;
using reserve_fuzz::fuzz;
using reserve_fuzz::Random;

using Numbers = std::vector<float>;

Numbers draw(Random& random, int64_t count, bool any_bits) {
  Numbers drawn(static_cast<size_t>(count));
  for (float& value : drawn) {
    value = 4.0f * random.normal();
    if (any_bits) {
      const auto bits = static_cast<uint32_t>(random.between(0, UINT32_MAX));
      std::memcpy(&value, &bits, sizeof value);
    }
  }
  return drawn;
}

bool all_finite(const Numbers& numbers) {
  for (float value : numbers)
    if (!std::isfinite(value)) return false;
  return true;
}

bool near(double found, double expected, double scale) {
  if (!std::isfinite(expected) || !(scale < 1e37)) return true;
  return std::fabs(found - expected) <= 2e-5 * scale + 1e-30;
}

int differs(const char* what, int32_t isa, int64_t i, double found, double expected) {
  std::fprintf(stderr, "%s %lld, instruction set %d: %g, not %g\n", what, static_cast<long long>(i), isa, found,
               expected);
  return 1;
}

int scaling(Random& random, int32_t isa, int32_t threads, bool any_bits) {
  const int64_t rows = random.between(0, 80), dim = random.chance(0.1) ? random.between(1, 3000) : random.between(0, 90);
  const Numbers x = draw(random, rows * dim, any_bits), grad = draw(random, rows * dim, false);
  const auto given = exactly(x), given_grad = exactly(grad), out = exactly(x);
  const auto shares = exactly(Numbers(static_cast<size_t>(rows)));
  reserve_contrastive_scale p{};
  p.x = given.get();
  p.grad = random.chance(0.5) ? given_grad.get() : nullptr;
  p.out = p.grad != nullptr && random.chance(0.3) ? given_grad.get() : out.get();
  p.shares = shares.get();
  p.rows = rows;
  p.dim = dim;
  p.factor = 1.5f;
  p.of_factor = 0.75f;
  p.epsilon = 1e-5f;
  p.limit = 1.8e15f;
  if (reserve_contrastive_scale_cpu(&p, threads, isa) != RESERVE_OK) return 1;
  if (!all_finite(x)) return 0;
  for (int64_t row = 0; row < rows; ++row) {
    double squares = 1e-5, along = 0.0, size = 0.0;
    for (int64_t i = row * dim; i < (row + 1) * dim; ++i) squares += double(x[i]) * x[i];
    const double norm = 1.0 / std::sqrt(squares);
    for (int64_t i = row * dim; i < (row + 1) * dim; ++i) {
      along += x[i] * norm * grad[i];
      size += std::fabs(grad[i]);
    }
    for (int64_t i = row * dim; i < (row + 1) * dim; ++i) {
      const double unit = x[i] * norm, expected = p.grad ? (grad[i] - unit * along) * norm * 1.5 : unit * 1.5;
      const double scale = p.grad ? (std::fabs(grad[i]) + size) * norm * 1.5 : std::fabs(expected);
      if (!near(p.out[i], expected, scale)) return differs("scaled", isa, i, p.out[i], expected);
    }
    if (p.grad && !near(shares[row], along * 0.75, size)) return differs("share", isa, row, shares[row], along * 0.75);
  }
  return 0;
}

int logits(Random& random, int32_t isa, int32_t threads, bool any_bits) {
  const int64_t rows = random.between(0, 80);
  const int64_t columns = random.chance(0.2) ? random.between(500, 2500) : random.between(0, 90);
  const Numbers drawn = draw(random, rows * columns, any_bits);
  const bool bounded = random.chance(0.5), by_row = random.chance(0.8), by_column = !by_row || random.chance(0.8);
  const bool diagonal = rows <= columns && random.chance(0.5), finite = all_finite(drawn) && !any_bits;
  const auto block = exactly(drawn);
  const auto row_lse = exactly(Numbers(static_cast<size_t>(rows))), on_diagonal = exactly(Numbers(static_cast<size_t>(rows)));
  const auto maxima = exactly(Numbers(static_cast<size_t>(columns), -3e38f));
  const auto sums = exactly(std::vector<double>(static_cast<size_t>(columns)));
  reserve_contrastive_logsumexp p{};
  p.logits = block.get();
  p.row_lse = by_row ? row_lse.get() : nullptr;
  p.column_sum = by_column ? sums.get() : nullptr;
  p.column_max = by_column && !bounded ? maxima.get() : nullptr;
  p.diagonal = diagonal ? on_diagonal.get() : nullptr;
  p.rows = rows;
  p.columns = columns;
  p.first = diagonal ? random.between(0, columns - rows) : 0;
  p.bounded = bounded;
  p.store = bounded && random.chance(0.5);
  if (reserve_contrastive_logsumexp_cpu(&p, threads, isa) != RESERVE_OK) return 1;
  std::vector<double> of_rows(static_cast<size_t>(rows)), of_columns(static_cast<size_t>(columns));
  for (int64_t i = 0; i < rows * columns; ++i) {
    of_rows[i / columns] += std::exp(double(drawn[i]));
    of_columns[i % columns] += std::exp(double(drawn[i]));
    const double expected = p.store ? std::exp(double(drawn[i])) : drawn[i];
    if (finite && !near(block[i], expected, std::fabs(expected))) return differs("stored", isa, i, block[i], expected);
  }
  for (int64_t i = 0; finite && by_row && i < rows && columns > 0; ++i)
    if (!near(row_lse[i], std::log(of_rows[i]), 20)) return differs("row", isa, i, row_lse[i], std::log(of_rows[i]));
  for (int64_t i = 0; finite && by_column && i < columns && rows > 0; ++i) {
    const double found = std::log(sums[i]) + (bounded ? 0.0 : maxima[i]);
    if (!near(found, std::log(of_columns[i]), 20)) return differs("column", isa, i, found, std::log(of_columns[i]));
  }
  for (int64_t i = 0; finite && diagonal && i < rows; ++i)
    if (on_diagonal[i] != drawn[i * columns + p.first + i]) return differs("diagonal", isa, i, on_diagonal[i], 0);
  return 0;
}

int weights(Random& random, int32_t isa, int32_t threads, bool any_bits) {
  const int64_t rows = random.between(0, 80);
  const int64_t columns = random.chance(0.2) ? random.between(500, 2500) : random.between(0, 90);
  const Numbers drawn = draw(random, rows * columns, any_bits);
  const bool bounded = random.chance(0.5), by_row = random.chance(0.8), by_column = !by_row || random.chance(0.8);
  const bool diagonal = rows <= columns && random.chance(0.5), in_place = random.chance(0.5);
  const bool exponentiated = bounded && random.chance(0.5);
  const Numbers row_grad = draw(random, rows, false), column_grad = draw(random, columns, false);
  const auto block = exactly(drawn), out = exactly(drawn);
  const auto of_rows = exactly(row_grad), of_columns = exactly(column_grad), of_diagonal = exactly(row_grad);
  const auto row_lse = exactly(Numbers(static_cast<size_t>(rows), 3.0f));
  const auto column_lse = exactly(Numbers(static_cast<size_t>(columns), 5.0f));
  reserve_contrastive_weights p{};
  p.logits = block.get();
  p.weights = in_place ? block.get() : out.get();
  p.row_grad = by_row ? of_rows.get() : nullptr;
  p.row_lse = by_row ? row_lse.get() : nullptr;
  p.column_grad = by_column ? of_columns.get() : nullptr;
  p.column_lse = by_column ? column_lse.get() : nullptr;
  p.diagonal_grad = diagonal ? of_diagonal.get() : nullptr;
  p.rows = rows;
  p.columns = columns;
  p.first = diagonal ? random.between(0, columns - rows) : 0;
  p.bounded = bounded;
  p.exponentiated = exponentiated;
  if (reserve_contrastive_weights_cpu(&p, threads, isa) != RESERVE_OK) return 1;
  for (int64_t i = 0; !any_bits && i < rows * columns; ++i) {
    const int64_t row = i / columns, column = i % columns;
    const double e = exponentiated ? double(drawn[i]) : std::exp(double(drawn[i]));
    const double first = by_row ? e * std::exp(-3.0) * row_grad[row] : 0.0;
    const double second = by_column ? e * std::exp(-5.0) * column_grad[column] : 0.0;
    const double third = diagonal && column == p.first + row ? row_grad[row] : 0.0;
    const double expected = first + second + third;
    if (!near(p.weights[i], expected, std::fabs(first) + std::fabs(second) + std::fabs(third)))
      return differs("weight", isa, i, p.weights[i], expected);
  }
  return 0;
}

int run(Random& random) {
  for (int32_t isa : {RESERVE_ISA_BASELINE, RESERVE_ISA_AVX2, RESERVE_ISA_AVX512}) {
    if (!reserve_has_isa(isa)) continue;
    const auto threads = static_cast<int32_t>(random.between(1, 4));
    const bool any_bits = random.chance(0.3);
    if (scaling(random, isa, threads, any_bits) || logits(random, isa, threads, any_bits) ||
        weights(random, isa, threads, any_bits))
      return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return fuzz(argc, argv, run); }
