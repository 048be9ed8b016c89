// A real data-parallel trainer: a character-level LSTM over MPI. Gradients are reduce-scattered, so
// each rank holds a shard of them and of Adam's state, and the grad norm that the guard computes is
// truly sharded.
#include <mpi.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "client/examples/char_lstm/adam.h"
#include "client/examples/char_lstm/model.h"
#include "client/examples/char_lstm/options.h"
#include "client/examples/char_lstm/skip_check.h"
#include "client/examples/char_lstm/text.h"
#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "gradwarden/mpi.h"
#include "gradwarden/reporter.h"

namespace char_lstm {
namespace {

// A flat buffer of all parameters (or gradients), padded so that it divides evenly, and this rank's
// part of it.
struct Sharding {
  Sharding(std::uint64_t count, int rank, int world_size)
      : shard((count + static_cast<std::uint64_t>(world_size) - 1) /
              static_cast<std::uint64_t>(world_size)),
        begin(shard * static_cast<std::uint64_t>(rank)),
        padded(shard * static_cast<std::uint64_t>(world_size)) {}
  std::uint64_t shard;
  std::uint64_t begin;
  std::uint64_t padded;
};

double learning_rate_at(std::uint64_t step, const Options& o) {
  const auto done = static_cast<double>(step) / static_cast<double>(o.steps);
  double rate = o.learning_rate * (0.55 + 0.45 * std::cos(done * 3.14159265358979));
  if (step <= o.warmup_steps) {
    rate = o.learning_rate * static_cast<double>(step) / static_cast<double>(o.warmup_steps);
  }
  const bool jumps =
      o.lr_jump_at && step >= *o.lr_jump_at && step < *o.lr_jump_at + o.lr_jump_steps;
  return jumps ? rate * o.lr_jump_factor : rate;
}

// A batch as a broken data loader delivers it: characters at random.
void corrupt(Batch& batch, int vocabulary, std::mt19937_64& random) {
  std::uniform_int_distribution<int> any(0, vocabulary - 1);
  for (int& character : batch.inputs) character = any(random);
  for (int& character : batch.targets) character = any(random);
}

// What bad memory does.
void flip_lowest_bit(float& value) {
  value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1U);
}

double mean_over_ranks(double value, int world_size) {
  MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return value / world_size;
}

double evaluate(const Text& text, const Options& o, Model& model,
                std::span<const float> parameters) {
  const std::uint64_t chunks = text.held_out_chunks(o.batch, o.length);
  double loss = 0;
  for (std::uint64_t chunk = 0; chunk < chunks; ++chunk) {
    loss += model.forward(text.held_out(chunk, o.batch, o.length), parameters);
  }
  return loss / static_cast<double>(chunks);
}

struct Tally {
  std::uint64_t clipped = 0;
  std::uint64_t skipped = 0;
  std::uint64_t streak = 0;  // consecutive skips up to now
  std::optional<SkipCounts> verified;
  double last_loss = 0;
  double seconds = 0;
};

// Every skip is worth a line, but not every one of a long streak.
constexpr std::uint64_t kSkipsShown = 3;

void show(std::uint64_t step, const Options& o, double loss, double rate,
          const gradwarden::StepOutcome& outcome, std::uint64_t streak) {
  const bool skipped = outcome.decision == gradwarden::Decision::kSkip;
  if (step != 1 && step % o.progress_every != 0 && (!skipped || streak > kSkipsShown)) return;
  std::printf("step %4llu/%llu  loss %.4f  lr %.2e  grad norm %.4g  %s%s%s\n",
              static_cast<unsigned long long>(step), static_cast<unsigned long long>(o.steps), loss,
              rate, outcome.grad_norm, std::string(to_string(outcome.decision)).c_str(),
              skipped ? (" (" + std::string(to_string(outcome.reason)) + ")").c_str() : "",
              outcome.shadow && skipped ? ", only observed" : "");
  if (skipped && streak == kSkipsShown)
    std::printf("  further skips of this streak are not listed\n");
  std::fflush(stdout);
}

Tally train(const Options& o, const Text& text, Model& model, std::vector<float>& parameters,
            int rank, int world_size, std::optional<gradwarden::ReporterStatistics>& reported) {
  const Sharding sharding(model.parameter_count(), rank, world_size);
  std::vector<float> gradients(sharding.padded);
  std::vector<float> shard(sharding.shard);
  const std::span<float> mine(parameters.data() + sharding.begin, sharding.shard);
  Adam adam(sharding.shard);
  std::mt19937_64 random(o.seed * 1000 + static_cast<std::uint64_t>(rank));

  const auto tensors = model.tensors();
  const auto shards = gradwarden::flat_shards(tensors, sharding.begin, sharding.shard, shard.data(),
                                              gradwarden::DType::kFloat32);
  const auto local = gradwarden::flat_shards(tensors, 0, sharding.padded, gradients.data(),
                                             gradwarden::DType::kFloat32);
  const auto held = gradwarden::flat_shards(tensors, 0, sharding.padded, parameters.data(),
                                            gradwarden::DType::kFloat32);
  const auto moment = adam.describe(tensors, sharding.begin);
  const gradwarden::TensorList others[] = {{"second_moment", moment}};
  const gradwarden::GuardOptions policy{.max_norm = o.max_norm,
                                        .skip_above_rolling_mean = o.skip_above_rolling_mean,
                                        .max_consecutive_skips = o.max_consecutive_skips,
                                        .shadow = o.observe_only,
                                        .audit_every = o.observe_every,
                                        .observe_others_every = o.observe_every};
  gradwarden::ReporterOptions reporting;
  reporting.daemon = o.daemon;
  reporting.run = o.run;
  reporting.history_path = o.history;
  reporting.flight_directory = o.flight_directory;
  reporting.close_timeout = std::chrono::seconds(5);

  // README:begin
  gradwarden::MpiRanks ranks(MPI_COMM_WORLD);
  gradwarden::Reporter reporter(reporting, ranks);
  gradwarden::Guard guard(policy, ranks, &reporter);
  guard.bind({.gradients = shards, .local = local, .parameters = held, .others = others});
  // README:end

  Tally tally;
  std::optional<SkipCheck> check;
  if (o.verify_skips) check.emplace(parameters, adam, shard);
  const auto start = std::chrono::steady_clock::now();
  for (std::uint64_t step = 1; step <= o.steps; ++step) {
    if (o.flip_bit_at == step && rank == o.flip_bit_rank) flip_lowest_bit(parameters[0]);
    Batch batch = text.batch(step - 1, rank, world_size, o.batch, o.length);
    if (o.corrupt_batch_at == step) corrupt(batch, text.vocabulary(), random);
    const double loss = mean_over_ranks(model.forward(batch, parameters), world_size);
    model.backward(batch, parameters, gradients);
    if (o.nan_at == step && rank == o.nan_rank) gradients[gradients.size() / 2] = std::nanf("");

    guard.observe_local();  // README
    for (float& gradient : gradients) gradient /= static_cast<float>(world_size);
    MPI_Reduce_scatter_block(gradients.data(), shard.data(), static_cast<int>(sharding.shard),
                             MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    const double rate = learning_rate_at(step, o);
    const std::string id = "chunk-" + std::to_string(batch.chunk);
    const std::string_view ids[] = {id};
    if (check) check->before_step();
    // README:begin
    const gradwarden::StepOutcome outcome =
        guard.step({.step = step, .loss = loss, .learning_rate = rate, .batch_ids = ids});
    if (outcome.should_update()) adam.step(mine, shard, rate);
    // README:end
    if (outcome.reason == gradwarden::Reason::kCollectiveFailed) {
      throw std::runtime_error("the ranks lost each other: " + ranks.last_error());
    }
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, parameters.data(),
                  static_cast<int>(sharding.shard), MPI_FLOAT, MPI_COMM_WORLD);

    tally.clipped += outcome.decision == gradwarden::Decision::kClip ? 1 : 0;
    const bool skipped = outcome.decision == gradwarden::Decision::kSkip;
    if (check) check->after_step(skipped);
    tally.skipped += skipped ? 1 : 0;
    tally.streak = skipped ? tally.streak + 1 : 0;
    tally.last_loss = loss;
    if (rank == 0) show(step, o, loss, rate, outcome, tally.streak);
  }
  tally.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (check) tally.verified = check->counts_of_all_ranks();
  reporter.close();
  if (!o.daemon.empty() || !o.history.empty()) reported = reporter.statistics();
  return tally;
}

nlohmann::json summary(const Options& o, const Tally& tally, double held_out_loss,
                       const std::optional<gradwarden::ReporterStatistics>& reported) {
  nlohmann::json out = {{"run", o.run},
                        {"steps", o.steps},
                        {"observe_only", o.observe_only},
                        {"clipped_steps", tally.clipped},
                        {"skipped_steps", tally.skipped},
                        {"seconds", tally.seconds},
                        {"held_out_loss", nullptr}};
  if (std::isfinite(held_out_loss)) out["held_out_loss"] = held_out_loss;
  if (tally.verified) {
    out["verified_skips"] = {{"skipped", tally.verified->skipped},
                             {"changed_state", tally.verified->changed_state},
                             {"changed_gradients", tally.verified->changed_gradients}};
  }
  if (reported) {
    out["reports"] = {{"submitted", reported->submitted}, {"acknowledged", reported->acknowledged},
                      {"rejected", reported->rejected},   {"dropped", reported->dropped},
                      {"pending", reported->pending},     {"last_error", reported->last_error}};
  }
  return out;
}

// Each stream must have characters of its own for at least one sequence.
void check_enough(const Text& text, const Options& o, int world_size) {
  const auto needed = static_cast<std::uint64_t>(world_size) * static_cast<std::uint64_t>(o.batch) *
                      static_cast<std::uint64_t>(o.length);
  if (needed <= text.size() / 20 * 19) return;
  throw std::runtime_error("the texts have " + std::to_string(text.size()) +
                           " characters; --batch x --length x ranks is " + std::to_string(needed) +
                           ", allowed: at most 19/20 of the texts");
}

void write_summary(const std::string& path, const nlohmann::json& summary) {
  std::ofstream file(path);
  file << summary.dump(2) << '\n';
  if (!file.flush()) throw std::runtime_error(path + ": the summary cannot be written");
}

int run(const Options& o, int rank, int world_size) {
  const Text text(o.texts.empty() ? default_texts() : o.texts);
  check_enough(text, o, world_size);
  Model model(text.vocabulary(), o.embedding, o.hidden, o.batch, o.length);
  const Sharding sharding(model.parameter_count(), rank, world_size);
  std::vector<float> parameters(sharding.padded);
  std::mt19937_64 random(o.seed);
  model.initialize(std::span(parameters).first(model.parameter_count()), random);
  if (rank == 0) {
    std::printf(
        "run %s: %d ranks, %zu characters, vocabulary %d, %llu parameters, %d characters a "
        "sequence\n",
        o.run.c_str(), world_size, text.size(), text.vocabulary(),
        static_cast<unsigned long long>(model.parameter_count()), o.length);
  }
  std::optional<gradwarden::ReporterStatistics> reported;
  const Tally tally = train(o, text, model, parameters, rank, world_size, reported);
  if (rank != 0) return 0;
  const double loss = evaluate(text, o, model, parameters);
  std::printf("done: held-out loss %.4f, %llu steps clipped, %llu skipped%s, %.1f s\n", loss,
              static_cast<unsigned long long>(tally.clipped),
              static_cast<unsigned long long>(tally.skipped),
              o.observe_only ? " (only observed)" : "", tally.seconds);
  if (tally.verified) {
    std::printf("skipped steps in which a parameter or moment changed: %llu; a gradient: %llu\n",
                static_cast<unsigned long long>(tally.verified->changed_state),
                static_cast<unsigned long long>(tally.verified->changed_gradients));
  }
  if (!o.json.empty()) write_summary(o.json, summary(o, tally, loss, reported));
  return 0;
}

int checked_main(int argc, char** argv) {
  int rank = 0;
  int world_size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  const ParseResult parsed = parse(argc, argv, world_size);
  if (rank == 0 && !parsed.help.empty()) std::fputs(parsed.help.c_str(), stdout);
  if (rank == 0 && !parsed.message.empty())
    std::fprintf(stderr, "char_lstm: %s\n", parsed.message.c_str());
  if (!parsed.help.empty() || !parsed.message.empty()) return parsed.exit_code;
  return run(parsed.options, rank, world_size);
}

}  // namespace
}  // namespace char_lstm

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  int code = 0;
  try {
    code = char_lstm::checked_main(argc, argv);
  } catch (const gradwarden::Error& error) {
    if (rank == 0) std::fprintf(stderr, "char_lstm: %s\n", error.what());
    code = 2;
  } catch (const std::exception& error) {
    if (rank == 0) std::fprintf(stderr, "char_lstm: %s\n", error.what());
    code = std::string(error.what()).starts_with("the ranks lost") ? 3 : 2;
  }
  if (code == 3) MPI_Abort(MPI_COMM_WORLD, code);
  MPI_Finalize();
  return code;
}
