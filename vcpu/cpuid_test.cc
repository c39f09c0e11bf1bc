#include "vcpu/cpuid.h"

#include <gtest/gtest.h>

#include <iterator>
#include <optional>

namespace vmm {
namespace {

kvm_cpuid_entry2 Leaf(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

std::vector<kvm_cpuid_entry2> AllOnes() {
  std::vector<kvm_cpuid_entry2> leaves{Leaf(0, 0, 0x1f, 0, 0, 0)};
  for (const uint32_t function : {0x01u, 0x05u, 0x06u, 0x07u, 0x0au, 0x0bu, 0x12u, 0x4000'0001u, 0x8000'0001u, 0x8000'0008u,
                                  0x8000'000au, 0x8000'001eu}) {
    leaves.push_back(Leaf(function, 0, ~0u, ~0u, ~0u, ~0u));
  }
  // A level 1 data cache and a level 3 unified one.
  leaves.push_back(Leaf(0x04, 0, 1 | 1 << 5 | 0xfff << 14, 0, 0, 0));
  leaves.push_back(Leaf(0x04, 3, 3 | 3 << 5 | 0xfff << 14, 0, 0, 0));
  return leaves;
}

std::optional<kvm_cpuid_entry2> Find(const std::vector<kvm_cpuid_entry2>& leaves, uint32_t function, uint32_t index = 0) {
  for (const auto& leaf : leaves) {
    if (leaf.function == function && leaf.index == index) return leaf;
  }
  return std::nullopt;
}

TEST(GuestCpuidTest, EachProcessorHasItsOwnApicIdEverywhere) {
  for (const uint32_t index : {0u, 1u, 3u}) {
    const auto leaves = GuestCpuid(AllOnes(), {.processors = 4}, index);
    EXPECT_EQ(Find(leaves, 0x01)->ebx >> 24, index);
    EXPECT_EQ(Find(leaves, 0x0b, 0)->edx, index);
    EXPECT_EQ(Find(leaves, 0x0b, 1)->edx, index);
    EXPECT_EQ(Find(leaves, 0x8000'001e)->eax, index);
  }
}

TEST(GuestCpuidTest, TopologyIsOnePackageOfCores) {
  const auto leaves = GuestCpuid(AllOnes(), {.processors = 6}, 0);
  EXPECT_EQ(Find(leaves, 0x0b, 0)->eax, 0u);  // one thread a core
  EXPECT_EQ(Find(leaves, 0x0b, 0)->ebx, 1u);
  EXPECT_EQ(Find(leaves, 0x0b, 1)->eax, 3u);  // six cores take three bits
  EXPECT_EQ(Find(leaves, 0x0b, 1)->ebx, 6u);
  EXPECT_EQ(Find(leaves, 0x0b, 2)->ecx, 2u);  // type 0 ends the list
  EXPECT_EQ(Find(leaves, 0x1f, 1)->ebx, 6u);
  EXPECT_EQ(Find(leaves, 0x01)->ebx >> 16 & 0xff, 6u);
  EXPECT_EQ(Find(leaves, 0x8000'0008)->ecx & 0xff, 5u);
  EXPECT_EQ(Find(leaves, 0x04, 0)->eax >> 14 & 0xfff, 0u);
  EXPECT_EQ(Find(leaves, 0x04, 3)->eax >> 14 & 0xfff, 7u);
}

TEST(GuestCpuidTest, OneProcessorHasNoHyperThreadingFlag) {
  EXPECT_EQ(Find(GuestCpuid(AllOnes(), {.processors = 1}, 0), 0x01)->edx >> 28 & 1, 0u);
  EXPECT_EQ(Find(GuestCpuid(AllOnes(), {.processors = 2}, 0), 0x01)->edx >> 28 & 1, 1u);
}

TEST(GuestCpuidTest, WhatTheMachineDoesNotHaveIsNotShown) {
  const auto leaves = GuestCpuid(AllOnes(), {.processors = 1}, 0);
  for (const uint32_t function : {0x05u, 0x06u, 0x0au, 0x12u, 0x8000'000au}) EXPECT_FALSE(Find(leaves, function));
  EXPECT_EQ(Find(leaves, 0x01)->ecx & (1u << 3 | 1u << 5), 0u);   // MONITOR, VMX
  EXPECT_EQ(Find(leaves, 0x8000'0001)->ecx & 1u << 2, 0u);        // SVM
  EXPECT_EQ(Find(leaves, 0x07)->ebx & 1u << 2, 0u);               // SGX
  EXPECT_EQ(Find(leaves, 0x01)->ecx >> 31, 1u);                   // a hypervisor is there
}

TEST(GuestCpuidTest, AmdsTopologyBitsAreNotSetOnIntel) {
  std::vector<kvm_cpuid_entry2> supported{Leaf(0, 0, 0x1f, 0x756e'6547, 0, 0), Leaf(0x8000'0001, 0, 0, 0, 0, 0),
                                          Leaf(0x8000'0008, 0, 0, 0, 0, 0)};
  const auto intel = GuestCpuid(supported, {.processors = 4}, 0);
  EXPECT_EQ(Find(intel, 0x8000'0001)->ecx, 0u);
  EXPECT_EQ(Find(intel, 0x8000'0008)->ecx, 0u);
  supported[0].ebx = 0x6874'7541;  // "Auth"
  const auto amd = GuestCpuid(supported, {.processors = 4}, 0);
  EXPECT_EQ(Find(amd, 0x8000'0001)->ecx, 1u << 22 | 1u << 1);
  EXPECT_EQ(Find(amd, 0x8000'0008)->ecx, 2u << 12 | 3u);
}

TEST(GuestCpuidTest, KvmFeaturesThatWriteGuestMemoryUnaskedAreOff) {
  const uint32_t features = Find(GuestCpuid(AllOnes(), {}, 0), 0x4000'0001)->eax;
  EXPECT_EQ(features & 1u << KVM_FEATURE_ASYNC_PF, 0u);
  EXPECT_EQ(features & 1u << KVM_FEATURE_STEAL_TIME, 0u);
  EXPECT_EQ(features & 1u << KVM_FEATURE_PV_EOI, 0u);
  EXPECT_NE(features & 1u << KVM_FEATURE_CLOCKSOURCE2, 0u);
}

TEST(GuestCpuidTest, AnotherHypervisorsLeavesReplaceKvms) {
  std::vector<kvm_cpuid_entry2> supported = AllOnes();
  supported.push_back(Leaf(0x4000'0000, 0, 0x4000'0001, 0x4b4d'564b, 0x564b'4d56, 0x4d));  // "KVMKVMKVM"
  supported.push_back(Leaf(0x4000'0100, 0, 1, 2, 3, 4));
  const CpuidLeaf other[] = {{0x4000'0000, 0x4000'0002, 1, 2, 3}, {0x4000'0001, 4, 5, 6, 7}, {0x4000'0002, 8, 9, 10, 11}};
  const auto leaves = GuestCpuid(supported, {.hypervisor = other}, 0);
  std::vector<CpuidLeaf> shown;
  for (const auto& leaf : leaves) {
    if (leaf.function >= 0x4000'0000 && leaf.function < 0x8000'0000) {
      shown.push_back({leaf.function, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx});
      EXPECT_EQ(leaf.flags, 0u);  // the same for every index
    }
  }
  EXPECT_EQ(shown, std::vector<CpuidLeaf>(std::begin(other), std::end(other)));
  EXPECT_EQ(Find(leaves, 0x01)->ecx >> 31, 1u);  // a hypervisor is there
  EXPECT_EQ(Find(leaves, 0x8000'0001)->ecx >> 22 & 1, 1u);
}

TEST(GuestCpuidTest, WithoutAnotherHypervisorKvmsLeavesAreShown) {
  std::vector<kvm_cpuid_entry2> supported = AllOnes();
  supported.push_back(Leaf(0x4000'0000, 0, 0x4000'0001, 0x4b4d'564b, 0x564b'4d56, 0x4d));
  const auto leaves = GuestCpuid(supported, {}, 0);
  EXPECT_EQ(Find(leaves, 0x4000'0000)->ebx, 0x4b4d'564bu);
  EXPECT_TRUE(Find(leaves, 0x4000'0001));
}

TEST(GuestCpuidTest, TheDeadlineTimerIsShownOnlyWhereKvmHasIt) {
  EXPECT_EQ(Find(GuestCpuid(AllOnes(), {.tsc_deadline_timer = false}, 0), 0x01)->ecx >> 24 & 1, 0u);
  EXPECT_EQ(Find(GuestCpuid(AllOnes(), {.tsc_deadline_timer = true}, 0), 0x01)->ecx >> 24 & 1, 1u);
}

}  // namespace
}  // namespace vmm
