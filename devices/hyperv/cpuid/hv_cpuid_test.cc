#include "devices/hyperv/cpuid/hv_cpuid.h"

#include <gtest/gtest.h>

#include <string>

namespace vmm {
namespace {

TEST(HvCpuidTest, LeavesAreInOrderAndTheFirstNamesTheLast) {
  const HvCpuid leaves = HvCpuidLeaves(HvOffer());
  for (uint32_t n = 0; n < leaves.size(); ++n) EXPECT_EQ(leaves[n].function, 0x4000'0000u + n);
  EXPECT_EQ(leaves[0].eax, 0x4000'0006u);
}

TEST(HvCpuidTest, SpellsVendorAndInterfaceAsGuestsReadThem) {
  const HvCpuid leaves = HvCpuidLeaves(HvOffer());
  const uint32_t vendor[] = {leaves[0].ebx, leaves[0].ecx, leaves[0].edx};
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(vendor), sizeof(vendor)), "Microsoft Hv");
  EXPECT_EQ(leaves[1], (CpuidLeaf{0x4000'0001, 0x3123'7648, 0, 0, 0}));  // "Hv#1"
  EXPECT_EQ(leaves[2], (CpuidLeaf{0x4000'0002, 14393, 0x000a'0000, 0, 0}));
}

TEST(HvCpuidTest, EachPartOfTheOfferIsInItsRegister) {
  HvOffer offer;
  offer.privileges = 0x1122'3344'5566'7788;
  offer.features = 0x99aa'bbcc;
  offer.recommendations = 0xddee'ff00;
  offer.spin_retries = 77;
  offer.max_vps = 5;
  const HvCpuid leaves = HvCpuidLeaves(offer, HvHardwareBit(HvHardware::kMsrBitmaps));
  EXPECT_EQ(leaves[3], (CpuidLeaf{0x4000'0003, 0x5566'7788, 0x1122'3344, 0, 0x99aa'bbcc}));
  EXPECT_EQ(leaves[4], (CpuidLeaf{0x4000'0004, 0xddee'ff00, 77, 0, 0}));
  EXPECT_EQ(leaves[5], (CpuidLeaf{0x4000'0005, 5, 5, 0, 0}));
  EXPECT_EQ(leaves[6], (CpuidLeaf{0x4000'0006, 2, 0, 0, 0}));
}

// The bits as the specification numbers them, not as the enumerations do.
TEST(StandardHvOfferTest, OffersWhatThisPartitionHas) {
  const HvCpuid leaves = HvCpuidLeaves(StandardHvOffer({.max_vps = 4}));
  // Run time, reference count, SynIC, timers, interrupt control, hypercall, VP index, reset, reference TSC, frequencies.
  EXPECT_EQ(leaves[3].eax, 0x0000'0affu);
  // Post and signal; VP registers, fast output, extended calls, start of processors.
  EXPECT_EQ(leaves[3].ebx, 0x003a'0030u);
  // XMM input, frequencies, crash, XMM output, SINT polling, hypercall lock, direct timers.
  EXPECT_EQ(leaves[3].edx, 0x000e'8510u);
  EXPECT_EQ(leaves[3].ecx, 0u);
  EXPECT_EQ(leaves[5].eax, 4u);
}

TEST(StandardHvOfferTest, HasVsmAndTheIdOnlyWhereAskedFor) {
  EXPECT_TRUE(StandardHvOffer({.vsm = true}).Has(HvPrivilege::kVsm));
  EXPECT_EQ(HvCpuidLeaves(StandardHvOffer({.vsm = true}))[3].ebx, 0x003b'0030u);
  EXPECT_FALSE(StandardHvOffer({}).Has(HvPrivilege::kVsm));
  EXPECT_FALSE(StandardHvOffer({}).Has(HvPrivilege::kPartitionId));
  EXPECT_EQ(HvCpuidLeaves(StandardHvOffer({.partition_id = true}))[3].ebx, 0x003a'0032u);
}

TEST(StandardHvOfferTest, AdvisesWhatIsFasterHere) {
  const HvCpuid leaves = HvCpuidLeaves(StandardHvOffer({}));
  // Remote TLB flush, relaxed timing, no auto-EOI, cluster IPI, Ex masks.
  EXPECT_EQ(leaves[4].eax, 0x0000'0e24u);
  EXPECT_EQ(leaves[4].ebx, 0xfffu);
}

TEST(StandardHvOfferTest, EachAdviceIsItsBit) {
  HvOfferOptions none{.remote_tlb_flush = false,
                      .cluster_ipi = false,
                      .ex_processor_masks = false,
                      .relaxed_timing = false,
                      .no_auto_eoi = false};
  EXPECT_EQ(StandardHvOffer(none).recommendations, 0u);
  const auto with = [&](bool HvOfferOptions::*option) {
    HvOfferOptions options = none;
    options.*option = true;
    return StandardHvOffer(options).recommendations;
  };
  EXPECT_EQ(with(&HvOfferOptions::remote_tlb_flush), 1u << 2);
  EXPECT_EQ(with(&HvOfferOptions::apic_msrs), 1u << 3);
  EXPECT_EQ(with(&HvOfferOptions::reset_msr), 1u << 4);
  EXPECT_EQ(with(&HvOfferOptions::relaxed_timing), 1u << 5);
  EXPECT_EQ(with(&HvOfferOptions::no_auto_eoi), 1u << 9);
  EXPECT_EQ(with(&HvOfferOptions::cluster_ipi), 1u << 10);
  EXPECT_EQ(with(&HvOfferOptions::ex_processor_masks), 1u << 11);
  none.spin_retries = 0xffff'ffff;
  EXPECT_EQ(StandardHvOffer(none).spin_retries, 0xffff'ffffu);
}

}  // namespace
}  // namespace vmm
