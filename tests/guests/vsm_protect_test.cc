// VsmPartitionConfig and ModifyVtlProtectionMask: when protections may be set, which ones, and what each refusal says.
//
// What an ordinary host cannot enforce (to execute without, to write without executing) is refused, or rounded up where the
// configuration says so: "execute=rounded" on the command line says which of the two this machine does.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

using Name = HvRegisterName;

constexpr uint32_t kRead = vmm::kHvProtectRead;
constexpr uint32_t kReadWrite = kRead | vmm::kHvProtectWrite;
constexpr uint32_t kExecute = vmm::kHvProtectKernelExecute | vmm::kHvProtectUserExecute;
constexpr uint64_t kBeyond = uint64_t{1} << 40;
constexpr uint64_t kOn = vmm::kHvConfigEnableProtection | vmm::kHvConfigDefaultMask;

uint64_t g_pages;  // 512, whose first bytes are their numbers

uint64_t Config() { return RegisterValue(Name::kVsmPartitionConfig); }
uint64_t SetConfig(uint64_t value) { return SetRegister(Name::kVsmPartitionConfig, {value, 0}); }

TEST(NothingIsProtectedBeforeProtectionIsOn) {
  EnableVtl1();
  g_pages = GpaOf(AllocatePages(512));
  for (uint64_t page = 0; page < 512; ++page) Store<uint64_t>(g_pages + page * kPageBytes, page);
  InVtl1([] {
    EXPECT_EQ(Config(), vmm::kHvConfigReset);
    EXPECT_EQ(ModifyProtection(g_pages, kReadExecute), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(ModifyProtection(g_pages, vmm::kHvProtectAll), Answer(HvStatus::kAccessDenied));
  });
}

TEST(ConfigurationsThatAreNone) {
  InVtl1([] {
    for (const uint64_t value : {
             kOn | 1 << 7,                     // intercepts for a VTL2
             kOn | uint64_t{1} << 63,          // nothing
             uint64_t{1},                      // a default that takes everything away
             uint64_t{1 | kRead << 1},         // writing
             uint64_t{1 | 0xe << 1},           // reading
             uint64_t{1 | (kReadWrite | vmm::kHvProtectUserExecute) << 1},    // one kind of execution
             uint64_t{1 | (kReadWrite | vmm::kHvProtectKernelExecute) << 1},
         }) {
      const Context context("value", value);
      EXPECT_EQ(SetConfig(value), Answer(HvStatus::kInvalidRegisterValue));
    }
    EXPECT_EQ(Config(), vmm::kHvConfigReset);
    EXPECT_EQ(SetRegister(Name::kVsmPartitionConfig, {kOn, 0}, {.input_vtl = OfVtl(0)}), Answer(HvStatus::kInvalidParameter));
  });
  EXPECT_EQ(SetRegister(Name::kVsmPartitionConfig, {kOn, 0}, {.input_vtl = OfVtl(1)}), Answer(HvStatus::kAccessDenied));
}

TEST(ProtectionIsOnOnceAndForAll) {
  EnableProtection();
  InVtl1([] {
    EXPECT_EQ(Config(), kOn);
    EXPECT_EQ(SetConfig(kOn), Success(1));  // the same again
    EXPECT_EQ(SetConfig(vmm::kHvConfigDefaultMask), Answer(HvStatus::kInvalidRegisterValue));           // off
    EXPECT_EQ(SetConfig(1 | kReadWrite << 1), Answer(HvStatus::kInvalidRegisterValue));  // another default
    EXPECT_EQ(SetConfig(kOn | vmm::kHvConfigZeroMemory), Success(1));  // the rest may change
    EXPECT_EQ(SetConfig(kOn), Success(1));
    EXPECT_EQ(Config(), kOn);
  });
}

TEST(WhoMayProtectWhat) {
  EXPECT_EQ(ModifyProtection(g_pages, kReadExecute), Answer(HvStatus::kInvalidParameter));  // VTL0 has nobody below
  EXPECT_EQ(ModifyProtection(g_pages, kReadExecute, 1, OfVtl(1)), Answer(HvStatus::kAccessDenied));
  InVtl1([] {
    EXPECT_EQ(ModifyProtection(g_pages, kReadExecute, 1, OfVtl(2)), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(ModifyProtection(g_pages, kReadExecute, 1, 0x30), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(ModifyProtection(g_pages, kReadExecute, 1, OfVtl(1)), Success(1));
    EXPECT_EQ(ModifyProtection(g_pages, vmm::kHvProtectAll, 1, OfVtl(0)), Success(1));  // whom it restricts: the same
    Block().Put(vmm::HvModifyVtlProtectionInput{
        .partition_id = 5, .flags = kReadExecute, .target_vtl = 0, .reserved = {}}).Put(g_pages / kPageBytes);
    EXPECT_EQ(CallMemory({.code = HypercallCode::kModifyVtlProtectionMask, .reps = 1}), Answer(HvStatus::kAccessDenied));
    Block().Put(vmm::HvModifyVtlProtectionInput{
        .partition_id = vmm::kHvPartitionIdSelf, .flags = kReadExecute, .target_vtl = 0, .reserved = {1, 0, 0}}).Put(g_pages / kPageBytes);
    EXPECT_EQ(CallMemory({.code = HypercallCode::kModifyVtlProtectionMask, .reps = 1}), Answer(HvStatus::kInvalidParameter));
  });
}

TEST(CombinationsThatAreNone) {
  InVtl1([] {
    for (const uint32_t flags : {uint32_t{2}, uint32_t{4}, uint32_t{8}, uint32_t{0xc}, uint32_t{0xe}, kRead | 4, kRead | 8,
                                 kReadWrite | 4, kReadWrite | 8, uint32_t{0x10}, 0x1fu, 0x8000'000fu, 0x1'000fu}) {
      const Context context("flags", flags);
      EXPECT_EQ(ModifyProtection(g_pages, flags), Answer(HvStatus::kInvalidRegisterValue));
    }
  });
}

TEST(WhatTheHostCannotEnforceIsRefusedOrRounded) {
  const char* const execute = Argument("execute");
  const bool rounded = execute != nullptr && strcmp(execute, "rounded") == 0;
  const uint64_t want = rounded ? Success(1) : Answer(HvStatus::kFeatureUnavailable);
  EXPECT_EQ(Protect(g_pages, kRead), want);
  EXPECT_EQ(Protect(g_pages, kReadWrite), want);
  if (rounded) {
    // Read without execute is read with it; what can be denied still is.
    EXPECT_EQ(Protect(g_pages, kRead), Success(1));
    EXPECT_EQ(Intercepted(Reply::kSkip, [] { Store<uint64_t>(g_pages, 7); }).count, 1u);
  }
  EXPECT_EQ(Protect(g_pages, vmm::kHvProtectAll), Success(1));
  EXPECT_EQ(Load<uint64_t>(g_pages), 0u);
}

TEST(PagesThatAreNoMemory) {
  InVtl1([] {
    EXPECT_EQ(ModifyProtection(kBeyond, kReadExecute), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(ModifyProtection(0xfee0'0000, kNoAccess), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(ModifyProtection(~uint64_t{0xfff}, kNoAccess), Answer(HvStatus::kInvalidParameter));
    // The pages before it are protected, and are counted.
    Block block;
    block.Put(vmm::HvModifyVtlProtectionInput{
        .partition_id = vmm::kHvPartitionIdSelf, .flags = kNoAccess, .target_vtl = 0, .reserved = {}});
    for (const uint64_t gpa : {g_pages, g_pages + kPageBytes, kBeyond, g_pages + 2 * kPageBytes}) block.Put(gpa / kPageBytes);
    EXPECT_EQ(CallMemory({.code = HypercallCode::kModifyVtlProtectionMask, .reps = 4}), Answer(HvStatus::kInvalidParameter, 2));
  });
  EXPECT_EQ(Intercepted(Reply::kSkip, [] { Store<uint8_t>(g_pages + kPageBytes, 1); }).count, 1u);
  EXPECT_EQ(Intercepted(Reply::kSkip, [] { Store<uint64_t>(g_pages + 2 * kPageBytes, 2); }).count, 0u);
  EXPECT_EQ(Protect(g_pages, vmm::kHvProtectAll, 2), Success(2));
}

TEST(EveryPageOfALongListIsProtected) {
  Tally tally;
  const Protected pages(g_pages, kNoAccess, 510);
  for (const uint64_t page : {uint64_t{0}, uint64_t{1}, uint64_t{127}, uint64_t{128}, uint64_t{255}, uint64_t{509}}) {
    const Intercepts seen = Intercepted(Reply::kSkip, [page] { Store<uint64_t>(g_pages + page * kPageBytes, ~page); });
    tally.Equal(seen.count, 1, "intercepts");
    tally.Equal(seen.Memory(0).gpa, g_pages + page * kPageBytes, "its address");
  }
  for (const uint64_t page : {uint64_t{510}, uint64_t{511}}) {
    tally.Equal(Intercepted(Reply::kSkip, [page] { Store<uint64_t>(g_pages + page * kPageBytes, page); }).count, 0, "not in the list");
  }
  // VTL1 reads and writes them all the same.
  InVtl1([&] {
    for (uint64_t page = 0; page < 510; ++page) {
      tally.Equal(Load<uint64_t>(g_pages + page * kPageBytes), page, "as it was");
      Store<uint64_t>(g_pages + page * kPageBytes, page + 1);
    }
  });
  EXPECT_TRUE(tally.ok());
}

TEST(WhatIsFreeAgainIsVtl0s) {
  Tally tally;
  for (uint64_t page = 0; page < 510; ++page) {
    tally.Equal(Load<uint64_t>(g_pages + page * kPageBytes), page + 1, "what VTL1 wrote");
    Store<uint64_t>(g_pages + page * kPageBytes, page);
  }
  EXPECT_TRUE(tally.ok());
}

TEST(TheLastWordCounts) {
  InVtl1([] {
    EXPECT_EQ(ModifyProtection(g_pages, kNoAccess), Success(1));
    EXPECT_EQ(ModifyProtection(g_pages, kReadExecute), Success(1));
  });
  EXPECT_EQ(Intercepted(Reply::kSkip, [] { (void)Load<uint64_t>(g_pages); }).count, 0u);
  EXPECT_EQ(Intercepted(Reply::kSkip, [] { Store<uint64_t>(g_pages, 5); }).count, 1u);
  InVtl1([] { EXPECT_EQ(ModifyProtection(g_pages, kNoAccess), Success(1)); });
  EXPECT_EQ(Intercepted(Reply::kSkip, [] { (void)Load<uint64_t>(g_pages); }).count, 1u);
  InVtl1([] { EXPECT_EQ(ModifyProtection(g_pages, vmm::kHvProtectAll), Success(1)); });
  EXPECT_EQ(Load<uint64_t>(g_pages), 0u);
  // A read-execute page runs.
  Store<uint32_t>(g_pages, 0xc3c0'31u | 0x9000'0000u);  // xor %eax, %eax; ret
  const Protected page(g_pages, kReadExecute);
  reinterpret_cast<void (*)()>(g_pages)();
}

TEST(DenyingExecutionAloneIsNotPretended) {
  InVtl1([] {
    // No access denies execution too: that can be had.
    EXPECT_EQ(ModifyProtection(g_pages, kNoAccess), Success(1));
    EXPECT_EQ(ModifyProtection(g_pages, vmm::kHvProtectAll), Success(1));
    EXPECT_EQ(ModifyProtection(g_pages, kExecute), Answer(HvStatus::kInvalidRegisterValue));  // without reading
  });
}

}  // namespace
}  // namespace guest
