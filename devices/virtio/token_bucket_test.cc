#include "devices/virtio/token_bucket.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

TEST(TokenBucketTest, WithoutARateNothingWaits) {
  TokenBucket bucket(0, 1);
  EXPECT_EQ(bucket.Take(~uint64_t{0}, 1), 0u);
}

TEST(TokenBucketTest, ABurstGoesThroughAndThenTheRateHolds) {
  TokenBucket bucket(1000, 100);
  uint64_t now = kSecond;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(bucket.Take(1, now), 0u);
  const uint64_t wait = bucket.Take(1, now);
  EXPECT_GE(wait, kSecond / 1000);
  EXPECT_LE(wait, kSecond / 1000 + 2);
  EXPECT_EQ(bucket.Take(1, now + wait), 0u);
  // A second later there is a burst again, not more.
  now += 100 * kSecond;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(bucket.Take(1, now), 0u);
  EXPECT_NE(bucket.Take(1, now), 0u);
}

TEST(TokenBucketTest, OneThatIsLargerThanTheBurstPassesOnceAndIsPaidForLater) {
  TokenBucket bucket(1000, 100);
  EXPECT_EQ(bucket.Take(1100, kSecond), 0u);
  const uint64_t wait = bucket.Take(100, kSecond);
  EXPECT_NEAR(static_cast<double>(wait), 1.1 * kSecond, 10);
}

TEST(TokenBucketTest, WhatIsChargedAfterwardsIsWaitedForByTheNext) {
  TokenBucket bucket(1000, 100);
  EXPECT_EQ(bucket.Take(1, kSecond), 0u);
  bucket.Charge(1099);
  EXPECT_NEAR(static_cast<double>(bucket.Take(1, kSecond)), 1.001 * kSecond, 10);
  TokenBucket free(0, 1);
  free.Charge(1'000'000);
  EXPECT_EQ(free.Take(1, kSecond), 0u);
}

TEST(TokenBucketTest, WhatIsReturnedIsThereAgain) {
  TokenBucket bucket(1, 1);
  EXPECT_EQ(bucket.Take(1, kSecond), 0u);
  EXPECT_NE(bucket.Take(1, kSecond), 0u);
  bucket.Return(1);
  EXPECT_EQ(bucket.Take(1, kSecond), 0u);
}

}  // namespace
}  // namespace vmm
