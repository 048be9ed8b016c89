#include <gtest/gtest.h>

#include <cmath>

#include "client/reporter/backlog.h"
#include "client/reporter/backoff.h"
#include "client/reporter/record_codec.h"
#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

v1::Report report(std::uint64_t step) {
  v1::Report r;
  r.set_step(step);
  return r;
}

std::vector<std::uint64_t> take(Backlog& backlog, std::size_t max_reports) {
  v1::ReportBatch batch;
  backlog.take_unsent(max_reports, 1 << 20, batch);
  std::vector<std::uint64_t> sequences;
  for (const auto& r : batch.reports()) sequences.push_back(r.sequence());
  return sequences;
}

using Sequences = std::vector<std::uint64_t>;

TEST(Backlog, SendsInOrderAndOnlyOncePerStream) {
  Backlog backlog(1 << 20);
  for (std::uint64_t step = 1; step <= 5; ++step) backlog.add(report(step));
  EXPECT_EQ(take(backlog, 2), (Sequences{1, 2}));
  EXPECT_EQ(take(backlog, 10), (Sequences{3, 4, 5}));
  EXPECT_FALSE(backlog.has_unsent());
  EXPECT_EQ(backlog.in_flight(), 5U);
}

TEST(Backlog, SendsWhatWasNotAcknowledgedAgainOnANewStream) {
  Backlog backlog(1 << 20);
  for (std::uint64_t step = 1; step <= 5; ++step) backlog.add(report(step));
  take(backlog, 10);
  EXPECT_EQ(backlog.settle(1, 2), 2U);
  EXPECT_EQ(backlog.settle(4, 4), 1U);
  EXPECT_EQ(backlog.settle(4, 4), 0U);
  backlog.rewind();
  EXPECT_EQ(take(backlog, 10), (Sequences{3, 5}));
  EXPECT_EQ(backlog.size(), 2U);
}

TEST(Backlog, DropsTheOldestWhenItIsFullAndSaysHowMany) {
  Backlog backlog(4096);
  std::uint64_t dropped = 0;
  for (std::uint64_t step = 1; step <= 1000; ++step) dropped += backlog.add(report(step));
  EXPECT_GT(dropped, 0U);
  EXPECT_EQ(backlog.size() + dropped, 1000U);
  const Sequences left = take(backlog, 2000);
  ASSERT_FALSE(left.empty());
  EXPECT_EQ(left.front(), dropped + 1);
  EXPECT_EQ(left.back(), 1000U);
}

TEST(Backlog, IgnoresAcknowledgementsOfWhatItNeverHad) {
  Backlog backlog(1 << 20);
  EXPECT_EQ(backlog.settle(1, ~std::uint64_t{0}), 0U);
  backlog.add(report(1));
  EXPECT_EQ(backlog.settle(0, ~std::uint64_t{0}), 1U);
  EXPECT_EQ(backlog.size(), 0U);
}

TEST(Backoff, StaysWithinADoublingBoundAndItsCap) {
  Backoff backoff(3);
  auto bound = Backoff::kFirst;
  for (int i = 0; i < 40; ++i) {
    const auto wait = backoff.next();
    EXPECT_GE(wait.count(), 0);
    EXPECT_LE(wait, bound);
    bound = std::min(bound * 2, Backoff::kLongest);
  }
  backoff.reset();
  EXPECT_LE(backoff.next(), Backoff::kFirst);
}

TEST(RecordCodec, KeepsEveryFieldOfARecord) {
  RunShape shape;
  shape.groups = {"a", "b"};
  shape.tensors = {"a.w", "b.w"};
  shape.group_of_tensor = {0, 1};
  const double norms[] = {1.5, 2.5};
  const double maxima[] = {0.5, 0.25};
  const std::uint64_t nans[] = {0, 3};
  const std::uint64_t infs[] = {0, 0};
  const std::uint64_t zeros[] = {7, 0};
  const double shard_norms[] = {1, 2, 3};
  const double local_norms[] = {4, 5, 6};
  const std::uint64_t local_counts[] = {0, 0, 9};
  const NonFiniteTensor findings[] = {{1, 2, 81233, 2, 1, true}};
  const std::string_view ids[] = {"shard-7", "doc-12"};
  StepRecord record;
  record.step = 42;
  record.grad_norm = std::nan("");
  record.clip_coefficient = 0.5;
  record.decision = Decision::kSkip;
  record.reason = Reason::kNonFinite;
  record.shadow = true;
  record.rolling_mean = 0.75;
  record.threshold = 2.25;
  record.learning_rate = 1e-3;
  record.nan_count = 3;
  record.zero_count = 7;
  record.element_count = 100;
  record.max_abs = 0.5;
  record.group_norms = norms;
  record.group_max_abs = maxima;
  record.group_nan_counts = nans;
  record.group_inf_counts = infs;
  record.group_zero_counts = zeros;
  record.shard_norms = shard_norms;
  record.local_norms = local_norms;
  record.local_non_finite_counts = local_counts;
  record.non_finite = findings;
  record.batch_ids = ids;

  std::vector<unsigned char> bytes(encoded_size(record));
  encode(record, 123456789, bytes.data());
  v1::Report out;
  decode(bytes.data(), shape, out);

  EXPECT_EQ(out.step(), 42U);
  EXPECT_EQ(out.time_unix_ns(), 123456789U);
  EXPECT_TRUE(std::isnan(out.grad_norm()));
  EXPECT_EQ(out.decision(), v1::DECISION_SKIP);
  EXPECT_EQ(out.reason(), v1::REASON_NON_FINITE);
  EXPECT_TRUE(out.shadow());
  EXPECT_EQ(out.rolling_mean(), 0.75);
  EXPECT_EQ(out.threshold(), 2.25);
  EXPECT_FALSE(out.has_loss());
  EXPECT_EQ(out.learning_rate(), 1e-3);
  EXPECT_EQ(out.group_norms(1), 2.5);
  EXPECT_EQ(out.group_max_abs(1), 0.25);
  EXPECT_EQ(out.group_nan_counts(1), 3U);
  EXPECT_EQ(out.group_inf_counts_size(), 0) << "all zero: left out";
  EXPECT_EQ(out.group_zero_counts(0), 7U);
  EXPECT_EQ(out.shard_norms(2), 3);
  EXPECT_EQ(out.local_norms(2), 6);
  EXPECT_EQ(out.local_non_finite_counts(2), 9U);
  ASSERT_EQ(out.non_finite_size(), 1);
  EXPECT_EQ(out.non_finite(0).tensor(), "b.w");
  EXPECT_EQ(out.non_finite(0).group(), 1U);
  EXPECT_EQ(out.non_finite(0).rank(), 2U);
  EXPECT_EQ(out.non_finite(0).index(), 81233U);
  EXPECT_TRUE(out.non_finite(0).local());
  ASSERT_EQ(out.batch_ids_size(), 2);
  EXPECT_EQ(out.batch_ids(1), "doc-12");
}

TEST(RecordCodec, CutsBatchIdsToTheLimitsOfTheWireAtWholeCharacters) {
  std::string accents;
  while (accents.size() <= limits::kMaxBatchIdBytes) accents += "\xC3\xA9";
  accents.insert(accents.begin(), 'x');  // the limit now falls inside a character
  const std::vector<std::string_view> ids(limits::kMaxBatchIds + 5, accents);
  StepRecord record;
  record.batch_ids = ids;
  std::vector<unsigned char> bytes(encoded_size(record));
  encode(record, 0, bytes.data());
  v1::Report out;
  decode(bytes.data(), {}, out);
  EXPECT_EQ(out.batch_ids_size(), static_cast<int>(limits::kMaxBatchIds));
  EXPECT_LE(out.batch_ids(0).size(), limits::kMaxBatchIdBytes);
  EXPECT_EQ(static_cast<unsigned char>(out.batch_ids(0).back()), 0xA9);
}

}  // namespace
}  // namespace gradwarden::reporter
