// The hypercall interface itself, as 64-bit code meets it: the page, both forms of parameters, and what is refused in which
// order.
#include "tests/guests/hypercalls.h"
#include "devices/hyperv/partition/hypercall_page_layout.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/registers.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

using vmm::HvRegisterName;
using vmm::HvRegisterValue;
using vmm::HvVpIndexFromApicIdInput;
using vmm::HvVpRegistersInput;
using vmm::kHvPartitionIdSelf;

constexpr Control kSpin{.code = HypercallCode::kNotifyLongSpinWait};
constexpr Control kQuery{.code = HypercallCode::kExtQueryCapabilities};
constexpr uint32_t kSelf = 0xffff'fffe;
constexpr uint64_t kReturnOffset = vmm::kHvVtlCall32Offset - 1;  // the first entry's last instruction

// Code of our own, with an OUT to the page's port where the page has it, or elsewhere.
uint64_t OwnPage(uint64_t out_offset) {
  auto* const page = static_cast<uint8_t*>(AllocatePages(1));
  memset(page, 0x90, out_offset);
  page[out_offset] = 0xe6;
  page[out_offset + 1] = static_cast<uint8_t>(vmm::kHvHypercallPort);
  page[out_offset + 2] = 0xc3;
  return GpaOf(page);
}

uint64_t ResultOf(uint64_t address, uint64_t control) {
  Registers registers{.rax = 0xaaaa, .rcx = control};
  CallWithRegisters(address, registers);
  return registers.rax;
}

// --- The page. Before the others: no page is enabled yet.

TEST(BeforeThePageIsEnabledItsPortIsNobodys) {
  EXPECT_EQ(ReadMsr(vmm::kHvMsrHypercall), 0u);
  EXPECT_EQ(ResultOf(OwnPage(1), kSpin.value()), 0xaaaau);
  // And without a guest OS id none can be.
  WriteMsr(vmm::kHvMsrHypercall, GpaOf(AllocatePages(1)) | vmm::kHvOverlayEnable);
  EXPECT_EQ(ReadMsr(vmm::kHvMsrHypercall) & vmm::kHvOverlayEnable, 0u);
  EXPECT_EQ(ResultOf(OwnPage(1), kSpin.value()), 0xaaaau);
}

TEST(ThePageIsCalledAtItsFirstByteOnEveryProcessor) {
  EnableHypercalls();
  EXPECT_EQ(ReadMsr(vmm::kHvMsrHypercall), HypercallPage() | vmm::kHvOverlayEnable);
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_EQ(CallFast(kSpin), Success());
  });
}

TEST(OnlyTheRightOffsetOfAPageIsACall) {
  // Our own code at an offset that the page has no entry at.
  EXPECT_EQ(ResultOf(OwnPage(0x80), kSpin.value()), 0xaaaau);
}

TEST(TheLastPageIsWhereCallsGo) {
  const uint64_t first = HypercallPage();
  const uint64_t second = GpaOf(AllocatePages(1));
  Store<uint64_t>(second, 0x1234);
  WriteMsr(vmm::kHvMsrHypercall, second | vmm::kHvOverlayEnable);
  HypercallPage() = second;
  EXPECT_EQ(CallFast(kSpin), Success());
  HypercallPage() = first;
  EnableHypercalls();
  EXPECT_EQ(Load<uint64_t>(second), 0x1234u);  // what lay below
  EXPECT_EQ(CallFast(kSpin), Success());
}

TEST(ThePageCannotBeWritten) {
  const auto before = Load<uint64_t>(HypercallPage());
  EXPECT_FAULT(kGeneralProtection, Store<uint64_t>(HypercallPage(), 0));
  EXPECT_EQ(Load<uint64_t>(HypercallPage()), before);
}

// The VTL entries, with one level: nowhere to go. The instruction that faults is the page's.
TEST(VtlCallAndReturnAreUndefinedWithOneLevel) {
  for (const uint32_t offset : {vmm::kHvVtlCall64Offset, vmm::kHvVtlReturn64Offset}) {
    const Context context("offset", offset);
    const Fault fault = Catch([&] {
      Registers registers;
      CallWithRegisters(HypercallPage() + offset, registers);
    });
    EXPECT_EQ(fault.vector, kUndefinedOpcode);
    EXPECT_EQ(fault.rip / kPageBytes, HypercallPage() / kPageBytes);
  }
  EXPECT_FAULT(kUndefinedOpcode, (void)CallFast({.code = HypercallCode::kVtlCall}));
  EXPECT_FAULT(kUndefinedOpcode, (void)CallFast({.code = HypercallCode::kVtlReturn}));
}

TEST(UserModeDoesNotGetThrough) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const auto call = [](uint64_t offset, uint64_t flags) {
      return InUserMode([address = HypercallPage() + offset] {
        uint64_t rax = 0, rcx = Control{.code = HypercallCode::kNotifyLongSpinWait, .fast = true}.value(), rdx = 0;
        asm volatile("call *%3" : "+a"(rax), "+c"(rcx), "+d"(rdx) : "r"(address) : "r8", "memory", "cc");
      }, flags);
    };
    // The way into user mode works.
    EXPECT_FALSE(call(kReturnOffset, 0).raised());
    // A known deviation (hypercall_page.h): the processor looks at the I/O privilege before anybody else does.
    EXPECT_EQ(call(0, 0).vector, kGeneralProtection);
    const Fault fault = call(0, kFlagsIopl3);
    EXPECT_EQ(fault.vector, kUndefinedOpcode);
    EXPECT_EQ(fault.rip, HypercallPage());
  });
}

// KVM keeps the instructions: no hypercall of ours comes by them, and nothing ends.
TEST(VmmcallBesideThePageIsHarmless) {
  const Fault fault = Catch([] {
    asm volatile("vmmcall" : : "c"(uint64_t{0x10008}), "d"(uint64_t{0}), "a"(uint64_t{0}) : "memory", "r8", "cc");
  });
  EXPECT_TRUE(!fault.raised() || fault.vector == kUndefinedOpcode);
  EXPECT_EQ(CallFast(kSpin), Success());
}

// --- Registers

TEST(ACallChangesItsResultOnly) {
  Registers registers{.rax = 0xa, .rbx = 0xb, .rcx = 0, .rdx = 7, .rsi = 0x51, .rdi = 0xd1,
                      .r8 = 8, .r9 = 9, .r10 = 10, .r11 = 11, .r12 = 12, .r13 = 13};
  const uint64_t control = Control{.code = HypercallCode::kNotifyLongSpinWait, .fast = true}.value();
  registers.rcx = control;
  for (uint64_t i = 0; i < 12; ++i) registers.xmm[i] = 0x1111'2222'3333'0000 + i;
  CallWithRegisters(HypercallPage(), registers);
  EXPECT_EQ(registers.rax, Success());
  EXPECT_EQ(registers.rbx, 0xbu);
  EXPECT_EQ(registers.rcx, control);
  EXPECT_EQ(registers.rdx, 7u);
  EXPECT_EQ(registers.rsi, 0x51u);
  EXPECT_EQ(registers.rdi, 0xd1u);
  EXPECT_EQ(registers.r8, 8u);
  EXPECT_EQ(registers.r9, 9u);
  EXPECT_EQ(registers.r10, 10u);
  EXPECT_EQ(registers.r11, 11u);
  EXPECT_EQ(registers.r12, 12u);
  EXPECT_EQ(registers.r13, 13u);
  uint64_t changed = 0;
  for (uint64_t i = 0; i < 12; ++i) changed += registers.xmm[i] != 0x1111'2222'3333'0000 + i;
  EXPECT_EQ(changed, 0u);
}

// --- What is refused, in which order

TEST(UnknownCodesAreRefusedFirst) {
  for (const uint16_t code : {0x0000, 0x0001, 0x0016, 0x00ff, 0x7fff, 0x8000, 0x8002, 0xffff}) {
    const Context context("code", code);
    const auto unknown = static_cast<HypercallCode>(code);
    EXPECT_EQ(CallFast({.code = unknown}), Answer(HvStatus::kInvalidHypercallCode));
    // Before all else that is wrong with it.
    EXPECT_EQ(CallRaw(Control{.code = unknown, .reps = 1, .start = 2, .variable = 1, .raw = uint64_t{1} << 63}.value(), 1, 1),
              Answer(HvStatus::kInvalidHypercallCode));
  }
}

TEST(ReservedBitsOfTheInputValueAreRefused) {
  for (const unsigned bit : {27, 28, 29, 30, 31, 44, 45, 46, 47, 60, 61, 62, 63}) {
    const Context context("bit", bit);
    Control control = kSpin;
    control.raw = uint64_t{1} << bit;
    EXPECT_EQ(CallFast(control), Answer(HvStatus::kInvalidHypercallInput));
  }
  // A call that is denied is denied before its shape is looked at.
  EXPECT_EQ(CallFast({.code = HypercallCode::kGetPartitionId, .raw = uint64_t{1} << 27}), Answer(HvStatus::kAccessDenied));
}

TEST(ASimpleCallHasNoRepsAndNoVariableHeader) {
  EXPECT_EQ(CallFast({.code = HypercallCode::kNotifyLongSpinWait, .reps = 1}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallFast({.code = HypercallCode::kNotifyLongSpinWait, .start = 1}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallFast({.code = HypercallCode::kNotifyLongSpinWait, .variable = 1}), Answer(HvStatus::kInvalidHypercallInput));
}

TEST(ARepCallHasReps) {
  for (const HypercallCode code : {HypercallCode::kFlushVirtualAddressList, HypercallCode::kGetVpRegisters,
                                   HypercallCode::kSetVpRegisters, HypercallCode::kGetVpIndexFromApicId}) {
    const Context context("code", static_cast<uint64_t>(code));
    EXPECT_EQ(CallMemory({.code = code}), Answer(HvStatus::kInvalidHypercallInput));
    EXPECT_EQ(CallMemory({.code = code, .reps = 1, .start = 1}), Answer(HvStatus::kInvalidHypercallInput));
    EXPECT_EQ(CallMemory({.code = code, .reps = 1, .start = 0xfff}), Answer(HvStatus::kInvalidHypercallInput));
    EXPECT_EQ(CallMemory({.code = code, .reps = 1, .variable = 1}), Answer(HvStatus::kInvalidHypercallInput));
  }
}

TEST(CallsThatAreNotOfferedAreDenied) {
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetPartitionId}), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(CallFast({.code = HypercallCode::kGetPartitionId}), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(Output()[0], kUntouched);
}

// --- Parameters in memory

TEST(BlocksAreAlignedTo8Bytes) {
  const uint64_t page = GpaOf(ThisParameters().input);
  const uint64_t spin = kSpin.value();
  for (const uint64_t offset : {1, 2, 4, 7}) {
    const Context context("offset", offset);
    EXPECT_EQ(CallRaw(spin, page + offset, 0), Answer(HvStatus::kInvalidAlignment));
    EXPECT_EQ(CallRaw(kQuery.value(), 0, page + offset), Answer(HvStatus::kInvalidAlignment));
  }
  EXPECT_EQ(CallRaw(spin, page + 8, 1), Success());            // no output: its address means nothing
  EXPECT_EQ(CallRaw(kQuery.value(), 1, page + 8), Success());  // no input
  EXPECT_EQ(CallRaw(spin, page + kPageBytes - 8, 0), Success());
}

TEST(BlocksStayWithinAPage) {
  const uint64_t page = GpaOf(ThisParameters().input);
  // The flush's header is 24 bytes.
  const uint64_t flush = Control{.code = HypercallCode::kFlushVirtualAddressSpace}.value();
  EXPECT_EQ(CallRaw(flush, page + kPageBytes - 16, 0), Answer(HvStatus::kInvalidAlignment));
  Store<uint64_t>(page + kPageBytes - 24, 0);
  Store<uint64_t>(page + kPageBytes - 16, vmm::kHvFlushAllProcessors);
  EXPECT_EQ(CallRaw(flush, page + kPageBytes - 24, 0), Success());
  // A list counts, and so does what it gives back: 16 + 4 x 1021 bytes are 4 too many, and 257 values of 16.
  EXPECT_EQ(CallRaw(Control{.code = HypercallCode::kGetVpIndexFromApicId, .reps = 1021}.value(), page,
                    GpaOf(ThisParameters().output)),
            Answer(HvStatus::kInvalidAlignment));
  EXPECT_EQ(CallRaw(Control{.code = HypercallCode::kGetVpRegisters, .reps = 257}.value(), page, GpaOf(ThisParameters().output)),
            Answer(HvStatus::kInvalidAlignment));
  // Behind a rep start nothing has been done; those before it count.
  EXPECT_EQ(CallRaw(Control{.code = HypercallCode::kGetVpRegisters, .reps = 257, .start = 3}.value(), page,
                    GpaOf(ThisParameters().output)),
            Answer(HvStatus::kInvalidAlignment, 3));
}

TEST(BlocksAreInRam) {
  // Behind 64 MiB, a device, the end of the address space.
  for (const uint64_t gpa : {uint64_t{0xa000'0000}, uint64_t{0xfee0'0000}, uint64_t{1} << 40, ~uint64_t{0xfff}}) {
    const Context context("gpa", gpa);
    EXPECT_EQ(CallRaw(kSpin.value(), gpa, 0), Answer(HvStatus::kInvalidHypercallInput));
    EXPECT_EQ(CallRaw(kQuery.value(), 0, gpa), Answer(HvStatus::kInvalidHypercallInput));
    EXPECT_EQ(CallRaw(kSpin.value(), gpa + 4, 0), Answer(HvStatus::kInvalidAlignment));  // the alignment first
  }
}

TEST(OutputIsWrittenWhereItBelongsOnly) {
  EXPECT_EQ(CallMemory(kQuery), Success());
  EXPECT_EQ(Output()[0], 0u);  // no extended call is there
  EXPECT_EQ(Output()[1], kUntouched);
  // Only on success.
  Control bad = kQuery;
  bad.reps = 1;
  EXPECT_EQ(CallMemory(bad), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(Output()[0], kUntouched);
}

// --- Parameters in registers

TEST(FastOutputFollowsTheInput) {
  uint64_t words[kFastWords];
  for (size_t i = 0; i < kFastWords; ++i) words[i] = 0x100 + i;
  // No input: slot 0 is the output's, and R8 behind its 8 bytes keeps its value.
  EXPECT_EQ(CallInRegisters(kQuery, words), Success());
  EXPECT_EQ(words[0], 0u);
  EXPECT_EQ(words[1], 0x101u);
  EXPECT_EQ(words[2], 0x102u);
}

TEST(RegistersComeBackInXmm) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    // Header in slot 0, two names in the first half of XMM0, values in XMM1 and XMM2.
    Block block;
    block.Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = 0, .reserved = {}})
        .Put(HvRegisterName::kVpIndex)
        .Put(HvRegisterName::kGuestOsId);
    uint64_t words[kFastWords];
    memcpy(words, ThisParameters().input, sizeof(words));
    for (size_t i = 3; i < kFastWords; ++i) words[i] = 0x1000 + i;
    const uint64_t names = words[2];
    EXPECT_EQ(CallInRegisters({.code = HypercallCode::kGetVpRegisters, .reps = 2}, words), Success(2));
    EXPECT_EQ(words[0], kHvPartitionIdSelf);
    EXPECT_EQ(words[1], uint64_t{kSelf});
    EXPECT_EQ(words[2], names);
    EXPECT_EQ(words[3], 0x1003u);
    EXPECT_EQ(words[4], ThisCpuNumber());
    EXPECT_EQ(words[5], 0u);
    EXPECT_EQ(words[6], kOurGuestOsId);
    EXPECT_EQ(words[7], 0u);
    uint64_t changed = 0;
    for (size_t i = 8; i < kFastWords; ++i) changed += words[i] != 0x1000 + i;
    EXPECT_EQ(changed, 0u);
  });
}

TEST(RegistersAreSetFromXmm) {
  Block block;
  block.Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = 0, .reserved = {}})
      .Put(vmm::HvSetVpRegistersElement{.name = HvRegisterName::kCrashP0, .reserved = {}, .value = {0x1234'5678'9abc'def0, 0}})
      .Put(vmm::HvSetVpRegistersElement{.name = HvRegisterName::kCrashP4, .reserved = {}, .value = {0x4444, 0}});
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kSetVpRegisters, .reps = 2}), Success(2));
  EXPECT_EQ(ReadMsr(vmm::kHvMsrCrashP0), uint64_t{0x1234'5678'9abc'def0});
  EXPECT_EQ(ReadMsr(vmm::kHvMsrCrashP4), 0x4444u);
}

TEST(FastCallsThatNeedMoreRegistersAreRefused) {
  // 112 bytes: 16 and three elements of 32 are all of them, a fourth is none.
  Block block;
  block.Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = 0, .reserved = {}});
  for (int i = 0; i < 3; ++i) {
    block.Put(vmm::HvSetVpRegistersElement{.name = HvRegisterName::kCrashP0, .reserved = {}, .value = {7, 0}});
  }
  EXPECT_EQ(block.bytes(), vmm::kHypercallFastBytes);
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kSetVpRegisters, .reps = 3}), Success(3));
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kSetVpRegisters, .reps = 4}), Answer(HvStatus::kInvalidHypercallInput));
  // Four names, 32 bytes, leave room for five values; five names take three slots and leave four.
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kGetVpRegisters, .reps = 5}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kPostMessage}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kStartVirtualProcessor}), Answer(HvStatus::kInvalidHypercallInput));
}

// --- Rep calls

void PutNames(uint32_t count, HvRegisterName name) {
  Block block;
  block.Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = 0, .reserved = {}});
  for (uint32_t i = 0; i < count; ++i) block.Put(name);
}

// More than are done at once: the call is made again from the page, and the guest does not see it.
TEST(LongCallsAreContinued) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    PutNames(256, HvRegisterName::kVpIndex);
    EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 256}), Success(256));
    uint64_t wrong = 0;
    for (size_t i = 0; i < 256; ++i) wrong += Output()[2 * i] != ThisCpuNumber() || Output()[2 * i + 1] != 0;
    EXPECT_EQ(wrong, 0u);
  });
}

TEST(ARepStartLeavesOutWhatIsBeforeIt) {
  PutNames(6, HvRegisterName::kGuestOsId);
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 6, .start = 4}), Success(6));
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(Output()[i], kUntouched);
  EXPECT_EQ(Output()[8], kOurGuestOsId);
  EXPECT_EQ(Output()[10], kOurGuestOsId);
  EXPECT_EQ(Output()[12], kUntouched);
}

TEST(ACallEndsAtTheFirstBadElement) {
  PutNames(40, HvRegisterName::kGuestOsId);
  auto* const names = reinterpret_cast<HvRegisterName*>(ThisParameters().input + 2);
  names[3] = static_cast<HvRegisterName>(0x7777'7777);
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 6}), Answer(HvStatus::kInvalidParameter, 3));
  EXPECT_EQ(Output()[4], kOurGuestOsId);
  EXPECT_EQ(Output()[6], kUntouched);
  // The guest skips it.
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 6, .start = 4}), Success(6));
  // In a later execution of a call that was continued.
  names[3] = HvRegisterName::kGuestOsId;
  names[37] = static_cast<HvRegisterName>(0x7777'7777);
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 40}), Answer(HvStatus::kInvalidParameter, 37));
  EXPECT_EQ(Output()[2 * 36], kOurGuestOsId);
  EXPECT_EQ(Output()[2 * 37], kUntouched);
}

// --- Small calls

TEST(NotifyLongSpinWaitAlwaysSucceeds) {
  EXPECT_EQ(CallFast(kSpin, 0), Success());
  EXPECT_EQ(CallFast(kSpin, ~uint64_t{0}, ~uint64_t{0}), Success());
  Block().Put(vmm::HvNotifyLongSpinWaitInput{.spin_count = 5, .pad = 0});
  EXPECT_EQ(CallMemory(kSpin), Success());
}

TEST(VpIndexFromApicIdIsTheNumber) {
  constexpr HvVpIndexFromApicIdInput kHeader{.partition_id = kHvPartitionIdSelf, .target_vtl = 0, .reserved = {}};
  const auto reps = static_cast<uint16_t>(CpuCount());
  {
    Block block;
    block.Put(kHeader);
    for (uint32_t id = 0; id <= CpuCount(); ++id) block.Put(id);
  }
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpIndexFromApicId, .reps = reps}), Success(reps));
  for (uint32_t id = 0; id < CpuCount(); ++id) EXPECT_EQ(Load<uint32_t>(GpaOf(Output()) + 4 * id), id);
  EXPECT_EQ(Load<uint32_t>(GpaOf(Output()) + 4 * CpuCount()), static_cast<uint32_t>(kUntouched));
  // Nobody has the last.
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpIndexFromApicId, .reps = static_cast<uint16_t>(reps + 1)}),
            Answer(HvStatus::kInvalidParameter, reps));
  // One in registers: the result is in the slot behind.
  uint64_t words[kFastWords] = {kHvPartitionIdSelf, 0, 0, 0x33, 0x44, 0x55};
  EXPECT_EQ(CallInRegisters({.code = HypercallCode::kGetVpIndexFromApicId, .reps = 1}, words), Success(1));
  EXPECT_EQ(words[3], 0x33u);
  EXPECT_EQ(words[4], 0u);
  EXPECT_EQ(words[5], 0x55u);
  Block().Put(HvVpIndexFromApicIdInput{.partition_id = 2, .target_vtl = 0, .reserved = {}}).Put(uint32_t{0});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpIndexFromApicId, .reps = 1}), Answer(HvStatus::kInvalidPartitionId));
  Block().Put(HvVpIndexFromApicIdInput{.partition_id = kHvPartitionIdSelf, .target_vtl = 1, .reserved = {}}).Put(uint32_t{0});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpIndexFromApicId, .reps = 1}), Answer(HvStatus::kAccessDenied));
  Block().Put(HvVpIndexFromApicIdInput{.partition_id = kHvPartitionIdSelf, .target_vtl = 3, .reserved = {}}).Put(uint32_t{0});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpIndexFromApicId, .reps = 1}), Answer(HvStatus::kInvalidParameter));
}

TEST(SignalEventKnowsNoSuchConnection) {
  // RDX: connection, flag 47:32, reserved 63:48.
  EXPECT_EQ(CallFast({.code = HypercallCode::kSignalEvent}, 0xdead'beef), Answer(HvStatus::kInvalidConnectionId));
  EXPECT_EQ(CallFast({.code = HypercallCode::kSignalEvent}, uint64_t{1} << 48), Answer(HvStatus::kInvalidParameter));
  Block().Put(vmm::HvSignalEventInput{.connection_id = 0xdead'beef, .flag_number = 0xffff, .reserved = 0});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kSignalEvent}), Answer(HvStatus::kInvalidConnectionId));
}

TEST(PostMessageChecksTheMessageBeforeTheConnection) {
  const auto post = [](uint32_t reserved, uint32_t type, uint32_t bytes) {
    vmm::HvPostMessageInput input{};
    input.connection_id = 0xdead'beef;
    input.reserved = reserved;
    input.message_type = type;
    input.payload_size = bytes;
    Block().Put(input);
    return CallMemory({.code = HypercallCode::kPostMessage});
  };
  EXPECT_EQ(post(0, 1, 240), Answer(HvStatus::kInvalidConnectionId));
  EXPECT_EQ(post(0, 1, 0), Answer(HvStatus::kInvalidConnectionId));
  EXPECT_EQ(post(0, 1, 241), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(post(0, 1, 0xffff'ffff), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(post(0, 0, 8), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(post(0, 0x8000'0001, 8), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(post(1, 1, 8), Answer(HvStatus::kInvalidParameter));
}

// --- The last: it takes the page away.

TEST(WithoutAGuestOsIdThePageIsGone) {
  const uint64_t own = OwnPage(1);
  EXPECT_EQ(CallFast(kSpin), Success());
  WriteMsr(vmm::kHvMsrGuestOsId, 0);
  EXPECT_EQ(ReadMsr(vmm::kHvMsrHypercall), HypercallPage());
  EXPECT_EQ(ResultOf(own, kSpin.value()), 0xaaaau);
  EXPECT_EQ(Load<uint8_t>(HypercallPage()), 0u);  // the page that was below it
  EnableHypercalls();
  EXPECT_EQ(CallFast(kSpin), Success());
}

}  // namespace
}  // namespace guest
