// A virtual processor with a hypervisor interface: MSRs, hypercalls, kicks, by real guest instructions.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/status_matchers.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/vp_requests.h"

namespace vmm {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Bytes Imm32(uint8_t opcode, uint32_t value) {
  return {opcode, uint8_t(value), uint8_t(value >> 8), uint8_t(value >> 16), uint8_t(value >> 24)};
}
Bytes MovEax(uint32_t value) { return Imm32(0xb8, value); }
Bytes MovEcx(uint32_t value) { return Imm32(0xb9, value); }
Bytes MovEdx(uint32_t value) { return Imm32(0xba, value); }
const Bytes kWrmsr = {0x0f, 0x30}, kRdmsr = {0x0f, 0x32};
const Bytes kOutEax = {0xe7, 0x10};          // to the recording port
const Bytes kEnd = {0xe6, 0x50, 0xeb, 0xfe};  // to the port that ends; jmp $
const Bytes kForever = {0xeb, 0xfe};
const Bytes kHypercall = {0x90, 0xe6, 0x30};  // as the hypercall page has it
const Bytes kPopEax = {0x58};

constexpr uint32_t kCode = 0x1000, kHandlers = 0x2000, kIdt = 0x3000, kGdt = 0x3800, kStack = 0x8000, kPageTables = 0x9000;
constexpr uint8_t kVectors = 14;
constexpr uint16_t kHypercallPort = 0x30;

class EndControl final : public MachineControl {
 public:
  void RequestEnd(MachineEnd end, absl::string_view) noexcept override {
    if (done.exchange(true)) return;
    reason = end;
    ended.Notify();
  }
  std::atomic<bool> done{false};
  MachineEnd reason = MachineEnd::kStopped;
  absl::Notification ended;
};

class EndPort final : public IoDevice {
 public:
  explicit EndPort(MachineControl& control) : control_(control) {}
  void Read(uint64_t, std::span<std::byte>) noexcept override {}
  void Write(uint64_t, std::span<const std::byte>) noexcept override { control_.RequestEnd(MachineEnd::kPoweredOff, ""); }

 private:
  MachineControl& control_;
};

class WordPort final : public IoDevice {
 public:
  void Read(uint64_t, std::span<std::byte>) noexcept override {}
  void Write(uint64_t, std::span<const std::byte> data) noexcept override {
    uint32_t word = 0;
    std::memcpy(&word, data.data(), std::min(sizeof(word), data.size()));
    words.push_back(word);
  }
  std::vector<uint32_t> words;  // the VP thread's; the test's once it has joined
};

// The hypervisor that the guest sees: answers that the test put in, and a record of what was asked.
class FakeGuestInterface final : public GuestInterface {
 public:
  bool ReadMsr(uint32_t msr, uint64_t& value) noexcept override {
    reads.push_back(msr);
    value = 0x1122'3344'5566'7788;
    return msr_known;
  }
  bool WriteMsr(uint32_t msr, uint64_t value) noexcept override {
    writes.emplace_back(msr, value);
    return msr_known;
  }
  HypercallOutcome Hypercall(HypercallRegisters& registers, XmmAccess& xmm) noexcept override {
    calls.push_back(registers);
    return hypercall(registers, xmm);
  }
  bool OnInaccessibleMemory() noexcept override {
    ++inaccessible;
    return is_read_only;
  }
  void PrepareToEnter() noexcept override {
    if (prepare) prepare();
    entries.fetch_add(1);
  }
  bool msr_known = true, is_read_only = true;
  std::function<HypercallOutcome(HypercallRegisters&, XmmAccess&)> hypercall =
      [](HypercallRegisters&, XmmAccess&) { return HypercallOutcome::kDone; };
  std::function<void()> prepare;
  std::vector<uint32_t> reads;
  std::vector<std::pair<uint32_t, uint64_t>> writes;
  std::vector<HypercallRegisters> calls;
  int inaccessible = 0;
  std::atomic<int> entries{0};
};

enum class Mode { kReal, kProtected, kLong };

class VirtualProcessorGuestTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, kvm::System::Open());
    ASSERT_OK_AND_ASSIGN(vm_, system_->CreateVm());
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kMiB));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kMiB}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    const auto& mapping = memory_->UnsafeMappings()[0];
    ASSERT_OK(vm_->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes));
    const kvm::MsrRange hyperv{.base = 0x4000'0000, .count = 0x200};
    ASSERT_OK(vm_->SetMsrFilter(std::span(&hyperv, 1)));
    ASSERT_OK(ports_.Add(0x10, 4, "words", words_));
    ASSERT_OK(ports_.Add(0x50, 1, "end", end_));
    ASSERT_OK_AND_ASSIGN(auto vcpu, vm_->CreateVcpu(0));
    ASSERT_OK_AND_ASSIGN(const auto cpuid, system_->SupportedCpuid());
    ASSERT_OK(vcpu->SetCpuid(cpuid));  // long mode
    ASSERT_OK_AND_ASSIGN(vp_, VirtualProcessor::Create(std::move(vcpu), {.ports = ports_,
                                                                         .memory = memory_bus_,
                                                                         .control = control_,
                                                                         .guest = &guest_,
                                                                         .hypercall_port = kHypercallPort,
                                                                         .requests = &requests_}));
    requests_.SetKick(0, *vp_);
  }

  void PutHandler(uint8_t vector, const Bytes& code) {
    ASSERT_LT(vector, kVectors);
    ASSERT_LE(code.size(), 32u);
    ASSERT_TRUE(memory_->Write(Gpa(kHandlers + 32u * vector), std::as_bytes(std::span(code))));
  }

  // Code at kCode. Protected: flat segments, a GDT, an IDT with the handlers; long: the first 2 MiB mapped as they are.
  void Load(const Bytes& code, Mode mode = Mode::kProtected, uint8_t cpl = 0) {
    ASSERT_TRUE(memory_->Write(Gpa(kCode), std::as_bytes(std::span(code))));
    for (uint32_t vector = 0; vector < kVectors; ++vector) {
      ASSERT_TRUE(memory_->WriteObject(Gpa(kIdt + 8 * vector),
                                       (kHandlers + 32 * vector) | uint64_t{0x10} << 16 | uint64_t{0x8e00} << 32));
    }
    ASSERT_TRUE(memory_->WriteObject(Gpa(kGdt + 0x10), uint64_t{0x00cf'9b00'0000'ffff}));
    ASSERT_TRUE(memory_->WriteObject(Gpa(kGdt + 0x18), uint64_t{0x00cf'9300'0000'ffff}));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vp_->vcpu().GetSregs());
    sregs.cr4 |= 1 << 9;  // OSFXSR
    if (mode == Mode::kReal) {
      sregs.cs.base = 0;
      sregs.cs.selector = 0;
    } else {
      for (kvm_segment* segment : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.ss}) {
        segment->base = 0;
        segment->limit = 0xffff'ffff;
        segment->selector = static_cast<uint16_t>((segment == &sregs.cs ? 0x10 : 0x18) | cpl);
        segment->dpl = cpl;
        segment->db = 1;
        segment->g = 1;
      }
      sregs.cr0 |= 1;
      sregs.idt = {.base = kIdt, .limit = kVectors * 8 - 1};
      sregs.gdt = {.base = kGdt, .limit = 4 * 8 - 1};
    }
    if (mode == Mode::kLong) {
      ASSERT_TRUE(memory_->WriteObject(Gpa(kPageTables), uint64_t{kPageTables + 0x1000} | 7));
      ASSERT_TRUE(memory_->WriteObject(Gpa(kPageTables + 0x1000), uint64_t{kPageTables + 0x2000} | 7));
      ASSERT_TRUE(memory_->WriteObject(Gpa(kPageTables + 0x2000), uint64_t{0x87}));
      sregs.cr3 = kPageTables;
      sregs.cr4 |= 1 << 5;
      sregs.cr0 |= uint64_t{1} << 31;
      sregs.efer |= 1 << 8 | 1 << 10;
      sregs.cs.l = 1;
      sregs.cs.db = 0;
    }
    ASSERT_OK(vp_->vcpu().SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rsp = stack_;
    regs.rflags = 2 | 3 << 12;  // IOPL 3
    regs.rbx = 0xb;
    regs.rcx = 0xc;
    regs.rdx = 0xd;
    regs.rsi = 0x51;
    regs.rdi = 0xd1;
    regs.r8 = 0x8888'0000'0008;
    ASSERT_OK(vp_->vcpu().SetRegs(regs));
  }
  // Runs to the end port, or to what ends the machine.
  void RunToEnd() {
    ASSERT_OK(vp_->Start());
    ASSERT_TRUE(control_.ended.WaitForNotificationWithTimeout(absl::Seconds(60)));
    vp_->RequestStop();
    vp_->Join();
  }

  uint32_t stack_ = kStack;
  std::unique_ptr<kvm::System> system_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<kvm::Vm> vm_;
  EndControl control_;
  EndPort end_{control_};
  WordPort words_;
  IoBus ports_, memory_bus_;
  FakeGuestInterface guest_;
  VpRequests requests_{2};
  std::unique_ptr<VirtualProcessor> vp_;
};

TEST_F(VirtualProcessorGuestTest, MsrAccessesReachTheInterface) {
  Load(MovEax(2) + MovEdx(1) + MovEcx(0x4000'0000) + kWrmsr + MovEcx(0x4000'0002) + kRdmsr + kOutEax + Bytes{0x89, 0xd0} +
       kOutEax + kEnd);  // mov eax, edx
  RunToEnd();
  EXPECT_EQ(guest_.writes, (std::vector<std::pair<uint32_t, uint64_t>>{{0x4000'0000, 0x1'0000'0002}}));
  EXPECT_EQ(guest_.reads, (std::vector<uint32_t>{0x4000'0002}));
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{0x5566'7788, 0x1122'3344}));
  EXPECT_EQ(vp_->stats().msr.load(), 2u);
}

TEST_F(VirtualProcessorGuestTest, AnMsrThatTheInterfaceRefusesIsAGeneralProtectionFault) {
  guest_.msr_known = false;
  PutHandler(13, kPopEax + kOutEax + kPopEax + kOutEax + kEnd);  // error code, then EIP
  Load(MovEcx(0x4000'0100) + kRdmsr + kEnd);
  RunToEnd();
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{0, kCode + 5}));
}

TEST_F(VirtualProcessorGuestTest, AHypercallSeesTheRegistersAndItsResultsArrive) {
  guest_.hypercall = [](HypercallRegisters& registers, XmmAccess&) {
    registers.rax = 0x5a5a'5a5a;
    registers.rdx = 0x77;
    return HypercallOutcome::kDone;
  };
  Load(MovEax(0xa) + kHypercall + kOutEax + Bytes{0x89, 0xd0} + kOutEax + kEnd);
  RunToEnd();
  ASSERT_EQ(guest_.calls.size(), 1u);
  const HypercallRegisters& call = guest_.calls[0];
  EXPECT_EQ(call.rax, 0xau);
  EXPECT_EQ(call.rbx, 0xbu);
  EXPECT_EQ(call.rcx, 0xcu);
  EXPECT_EQ(call.rdx, 0xdu);
  EXPECT_EQ(call.rsi, 0x51u);
  EXPECT_EQ(call.rdi, 0xd1u);
  EXPECT_TRUE(call.protected_mode);
  EXPECT_FALSE(call.long_mode);
  EXPECT_EQ(call.cpl, 0);
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{0x5a5a'5a5a, 0x77}));
  EXPECT_EQ(vp_->stats().hypercall.load(), 1u);
}

TEST_F(VirtualProcessorGuestTest, AHypercallInLongModeHasAllSixtyFourBits) {
  Load(kHypercall + kEnd, Mode::kLong);
  RunToEnd();
  ASSERT_EQ(guest_.calls.size(), 1u);
  EXPECT_EQ(guest_.calls[0].r8, 0x8888'0000'0008u);
  EXPECT_TRUE(guest_.calls[0].long_mode);
  EXPECT_TRUE(guest_.calls[0].protected_mode);
}

TEST_F(VirtualProcessorGuestTest, AHypercallOfAProgramShowsItsPrivilegeLevel) {
  Load(kHypercall + kEnd, Mode::kProtected, 3);
  RunToEnd();
  ASSERT_EQ(guest_.calls.size(), 1u);
  EXPECT_EQ(guest_.calls[0].cpl, 3);
}

TEST_F(VirtualProcessorGuestTest, AHypercallInRealModeSaysSo) {
  Load(kHypercall + kEnd, Mode::kReal);
  RunToEnd();
  ASSERT_EQ(guest_.calls.size(), 1u);
  EXPECT_FALSE(guest_.calls[0].protected_mode);
}

TEST_F(VirtualProcessorGuestTest, ACallThatIsToContinueIsMadeAgainWithItsNewRegisters) {
  guest_.hypercall = [](HypercallRegisters& registers, XmmAccess&) {
    if (registers.rcx < 0xf) {
      ++registers.rcx;
      return HypercallOutcome::kAgain;
    }
    registers.rax = 1;
    return HypercallOutcome::kDone;
  };
  Load(kHypercall + kOutEax + kEnd);
  RunToEnd();
  ASSERT_EQ(guest_.calls.size(), 4u);
  EXPECT_EQ(guest_.calls[3].rcx, 0xfu);
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{1}));
}

TEST_F(VirtualProcessorGuestTest, AnUndefinedOpcodeIsRaisedAtTheStartOfTheCall) {
  guest_.hypercall = [](HypercallRegisters&, XmmAccess&) { return HypercallOutcome::kUndefinedOpcode; };
  PutHandler(6, kPopEax + kOutEax + kEnd);
  Load(kHypercall + kOutEax + kEnd);
  RunToEnd();
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{kCode}));
}

TEST_F(VirtualProcessorGuestTest, WithoutAHypercallPageThePortIsOneThatNobodyAnswers) {
  guest_.hypercall = [](HypercallRegisters&, XmmAccess&) { return HypercallOutcome::kNotOffered; };
  Load(MovEax(7) + kHypercall + kOutEax + kEnd);
  RunToEnd();
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{7}));
  EXPECT_EQ(vp_->stats().unclaimed.load(), 1u);
  EXPECT_EQ(vp_->stats().hypercall.load(), 0u);
}

TEST_F(VirtualProcessorGuestTest, OtherAccessesToTheHypercallPortAreNone) {
  Load(Bytes{0xe7, 0x30, 0xe4, 0x30} + kEnd);  // out 0x30, eax; in al, 0x30
  RunToEnd();
  EXPECT_TRUE(guest_.calls.empty());
  EXPECT_EQ(vp_->stats().unclaimed.load(), 2u);
}

TEST_F(VirtualProcessorGuestTest, AHypercallReadsAndWritesXmmRegisters) {
  XmmRegisters seen{};
  guest_.hypercall = [&](HypercallRegisters&, XmmAccess& access) {
    EXPECT_TRUE(access.Load(seen));
    XmmRegisters out = seen;
    out[0] = {0x1111, 0x2222};
    EXPECT_TRUE(access.Store(out));
    return HypercallOutcome::kDone;
  };
  const std::array<uint64_t, 2> in{0xaaaa'bbbb'cccc'dddd, 0x1234'5678'9abc'def0};
  ASSERT_TRUE(memory_->WriteObject(Gpa(0x5000), in));
  // movups xmm5, [0x5000]; call; movups [0x5010], xmm0; movups [0x5020], xmm5
  Load(Bytes{0x0f, 0x10, 0x2d, 0x00, 0x50, 0, 0} + kHypercall + Bytes{0x0f, 0x11, 0x05, 0x10, 0x50, 0, 0} +
       Bytes{0x0f, 0x11, 0x2d, 0x20, 0x50, 0, 0} + kEnd);
  RunToEnd();
  EXPECT_EQ(seen[5], in);
  EXPECT_EQ(seen[0], (std::array<uint64_t, 2>{0, 0}));
  std::array<uint64_t, 2> out0, out5;
  ASSERT_TRUE(memory_->ReadObject(Gpa(0x5010), out0));
  ASSERT_TRUE(memory_->ReadObject(Gpa(0x5020), out5));
  EXPECT_EQ(out0, (std::array<uint64_t, 2>{0x1111, 0x2222}));
  EXPECT_EQ(out5, in);
}

TEST_F(VirtualProcessorGuestTest, AWriteToAPageThatMayOnlyBeReadIsAGeneralProtectionFault) {
  ASSERT_EQ(::mprotect(memory_->UnsafeHost(Gpa(0x6000), 4096), 4096, PROT_READ), 0);
  PutHandler(13, kPopEax + kOutEax + kPopEax + kOutEax + kEnd);
  Load(Bytes{0xa2, 0x00, 0x60, 0, 0} + kEnd);  // mov [0x6000], al
  RunToEnd();
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{0, kCode}));
  EXPECT_EQ(guest_.inaccessible, 1);
}

TEST_F(VirtualProcessorGuestTest, MemoryThatNobodyExplainsEndsTheMachine) {
  guest_.is_read_only = false;
  ASSERT_EQ(::mprotect(memory_->UnsafeHost(Gpa(0x6000), 4096), 4096, PROT_READ), 0);
  Load(Bytes{0xa2, 0x00, 0x60, 0, 0} + kEnd);
  RunToEnd();
  EXPECT_EQ(control_.reason, MachineEnd::kInternalError);
}

// The fault's own frame cannot be written, nor the double fault's: the guest's doing, not an endless loop.
TEST_F(VirtualProcessorGuestTest, AStackOnAPageThatMayOnlyBeReadEndsInATripleFault) {
  ASSERT_EQ(::mprotect(memory_->UnsafeHost(Gpa(0x6000), 4096), 4096, PROT_READ), 0);
  stack_ = 0x6800;
  Load(Bytes{0x0f, 0x0b} + kEnd);  // ud2
  RunToEnd();
  EXPECT_EQ(control_.reason, MachineEnd::kTripleFault);
  EXPECT_LE(guest_.inaccessible, 3);
}

TEST_F(VirtualProcessorGuestTest, AKickBringsAGuestThatLoopsToPrepareToEnter) {
  Load(kForever);
  ASSERT_OK(vp_->Start());
  for (int kick = 0; kick < 20; ++kick) {
    while (!vp_->may_be_in_guest()) ::sched_yield();
    const int before = guest_.entries.load();
    vp_->Kick();
    while (guest_.entries.load() == before) ::sched_yield();
  }
}

TEST_F(VirtualProcessorGuestTest, AKickFromItsOwnThreadIsOneMoreRound) {
  guest_.prepare = [this] {
    if (guest_.entries.load() < 5) vp_->Kick();
  };
  Load(kForever);
  ASSERT_OK(vp_->Start());
  while (guest_.entries.load() < 6) ::sched_yield();
}

TEST_F(VirtualProcessorGuestTest, KicksBeforeStartAndAfterJoinAreHarmless) {
  Load(kEnd);
  vp_->Kick();
  RunToEnd();
  vp_->Kick();
  EXPECT_EQ(control_.reason, MachineEnd::kPoweredOff);
  EXPECT_FALSE(vp_->may_be_in_guest());
}

// Work told of before each kick is seen, wherever the processor is: one lost kick and this waits for ever. Two kickers, so that
// kicks are coalesced; a guest with exits, so that they meet it in all places.
TEST_F(VirtualProcessorGuestTest, NoKickIsLost) {
  constexpr uint32_t kRounds = 2000;
  std::atomic<uint32_t> posted[2] = {}, seen[2] = {};
  guest_.prepare = [&] {
    for (int kicker = 0; kicker < 2; ++kicker) {
      const uint32_t round = posted[kicker].load(std::memory_order_relaxed);
      if (seen[kicker].exchange(round) != round) seen[kicker].notify_one();
    }
  };
  // mov ecx, 3000; loop $; out 0x40, al; jmp to the start
  Load(MovEcx(3000) + Bytes{0xe2, 0xfe, 0xe6, 0x40, 0xeb, 0xf5});
  ASSERT_OK(vp_->Start());
  std::vector<std::thread> kickers;
  for (int kicker = 0; kicker < 2; ++kicker) {
    kickers.emplace_back([&, kicker] {
      for (uint32_t round = 1; round <= kRounds; ++round) {
        posted[kicker].store(round, std::memory_order_relaxed);
        vp_->Kick();
        for (uint32_t now; (now = seen[kicker].load()) < round;) seen[kicker].wait(now);
      }
    });
  }
  for (std::thread& kicker : kickers) kicker.join();
  vp_->RequestStop();  // before what `prepare` refers to goes
  vp_->Join();
  EXPECT_GT(vp_->stats().interrupted.load(), 0u);
}

TEST_F(VirtualProcessorGuestTest, SettleCompletesTheLastExit) {
  uint64_t before = 0, after = 0, rax = 0;
  guest_.prepare = [&] {
    if (guest_.reads.empty() || before != 0) return;
    before = vp_->vcpu().GetRegs()->rip;
    EXPECT_TRUE(vp_->Settle());
    after = vp_->vcpu().GetRegs()->rip;
    rax = vp_->vcpu().GetRegs()->rax;
    // What is set now is not overwritten.
    kvm_regs regs = *vp_->vcpu().GetRegs();
    regs.rax = 0x4711;
    EXPECT_OK(vp_->vcpu().SetRegs(regs));
  };
  Load(MovEcx(0x4000'0002) + kRdmsr + kOutEax + kEnd);
  RunToEnd();
  EXPECT_EQ(before, kCode + 5);
  EXPECT_EQ(after, kCode + 7);
  EXPECT_EQ(rax, 0x5566'7788u);
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{0x4711}));
}

TEST_F(VirtualProcessorGuestTest, SettleAnswersTheRestOfAStringAccess) {
  bool settled = false;
  guest_.prepare = [&] {
    if (!settled && !words_.words.empty()) {
      settled = true;
      EXPECT_TRUE(vp_->Settle());
    }
  };
  // mov esi, 0x1000; mov ecx, 3; mov dx, 0x10; rep outsb
  Load(Imm32(0xbe, 0x1000) + MovEcx(3) + MovEdx(0x10) + Bytes{0xf3, 0x6e} + kEnd);
  RunToEnd();
  EXPECT_EQ(words_.words, (std::vector<uint32_t>{0xbe, 0x00, 0x10}));
}

TEST_F(VirtualProcessorGuestTest, ServesWorkOfOtherProcessorsOnItsThread) {
  guest_.prepare = [this] { requests_.Serve(0); };
  Load(kForever);
  ASSERT_OK(vp_->Start());
  std::thread::id ran_on = std::this_thread::get_id();
  EXPECT_TRUE(requests_.RunOn(1, 0, [&] { ran_on = std::this_thread::get_id(); }));
  EXPECT_NE(ran_on, std::this_thread::get_id());
}

TEST_F(VirtualProcessorGuestTest, AThreadThatHasEndedLeavesTheRequests) {
  Load(kEnd);
  guest_.is_read_only = false;
  ASSERT_EQ(::mprotect(memory_->UnsafeHost(Gpa(kCode), 4096), 4096, PROT_NONE), 0);
  ASSERT_OK(vp_->Start());
  ASSERT_TRUE(control_.ended.WaitForNotificationWithTimeout(absl::Seconds(60)));
  EXPECT_FALSE(requests_.RunOn(1, 0, [] { ADD_FAILURE(); }));
}

}  // namespace
}  // namespace vmm
