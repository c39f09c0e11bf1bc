#include "vcpu/virtual_processor.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/log.h"

namespace vmm {
namespace {

// Adds without a locked instruction: the VP thread alone writes.
void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

int KickSignal() { return SIGRTMIN; }

constexpr uint8_t kUndefinedOpcode = 6;
constexpr uint8_t kGeneralProtection = 13;
constexpr uint64_t kInvalidHypercallCode = 2;  // HV_STATUS
constexpr uint64_t kOutBytes = 2;              // of `out imm8, al`

// Fetched when a call first asks, stored by those that have output in there.
class VcpuXmm final : public XmmAccess {
 public:
  explicit VcpuXmm(kvm::Vcpu& vcpu) noexcept : vcpu_(vcpu) {}
  bool Load(XmmRegisters& xmm) noexcept override {
    if (!Fetch()) return false;
    std::memcpy(&xmm, Image() + kXmmOffset, sizeof(xmm));
    return true;
  }
  bool Store(const XmmRegisters& xmm) noexcept override {
    if (!Fetch()) return false;
    std::memcpy(Image() + kXmmOffset, &xmm, sizeof(xmm));
    // Without it, registers that were in their initial state stay there whatever the image says.
    uint64_t present;
    std::memcpy(&present, Image() + kPresentOffset, sizeof(present));
    present |= kSsePresent;
    std::memcpy(Image() + kPresentOffset, &present, sizeof(present));
    return vcpu_.SetXsave(xsave_);
  }

 private:
  // The XSAVE area: XMM registers in its legacy region, XSTATE_BV at the head of its header.
  static constexpr size_t kXmmOffset = 160, kPresentOffset = 512;
  static constexpr uint64_t kSsePresent = 2;
  [[nodiscard]] std::byte* Image() noexcept { return reinterpret_cast<std::byte*>(xsave_.region); }
  [[nodiscard]] bool Fetch() noexcept { return fetched_ || (fetched_ = vcpu_.GetXsave(xsave_)); }

  kvm::Vcpu& vcpu_;
  bool fetched_ = false;
  kvm_xsave xsave_;  // valid once fetched_
};

absl::Status InstallKickHandler() {
  struct sigaction action{};
  action.sa_handler = [](int) {};  // its only effect is EINTR
  if (::sigaction(KickSignal(), &action, nullptr) != 0) return ErrnoStatus(errno, "install vCPU signal handler");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<VirtualProcessor>> VirtualProcessor::Create(std::unique_ptr<kvm::Vcpu> vcpu,
                                                                           Environment environment,
                                                                           std::vector<UpperLevel> above) {
  static const absl::Status installed = InstallKickHandler();
  if (!installed.ok()) return installed;
  // Both register files: a hypercall looks at both, and no other exit to here is frequent.
  std::vector<Level> levels;
  levels.push_back({std::move(vcpu), environment.guest});
  for (UpperLevel& level : above) levels.push_back(std::move(level));
  if (levels.size() > SharedRegisters::kMaxLevels || (levels.size() > 1 && environment.scheduler == nullptr)) {
    return absl::InternalError(absl::StrCat("make a virtual processor of ", levels.size(), " trust levels"));
  }
  for (const Level& level : levels) {
    if (level.guest != nullptr) level.vcpu->EnableSyncRegs(/*with_sregs=*/true);
  }
  return std::unique_ptr<VirtualProcessor>(new VirtualProcessor(std::move(levels), environment));
}

VirtualProcessor::~VirtualProcessor() {
  RequestStop();
  Join();
}

absl::Status VirtualProcessor::Start() {
  process_id_ = ::getpid();
  // Guest exits need little stack; the default of 8 MiB is only address space, but 64 VPs of it look alarming in maps.
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 256 * 1024);
  const int error = ::pthread_create(&thread_, &attributes, &ThreadMain, this);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start thread of virtual processor ", vcpu().index()));
  started_ = true;
  return absl::OkStatus();
}

void VirtualProcessor::RequestStop() noexcept {
  stop_.store(true, std::memory_order_release);
  // The machine ends: who waits for another VP's answer is let go.
  if (environment_.requests != nullptr) environment_.requests->Stop();
  Kick();
}

void VirtualProcessor::Kick() noexcept {
  // acq_rel: releases the caller's work to the loop's exchange; acquires the loop's clearing of immediate_exit, so that our
  // setting of it is later.
  if (kicked_.exchange(true, std::memory_order_acq_rel)) return;
  for (const Level& level : levels_) level.vcpu->RequestExit();
  if (environment_.scheduler != nullptr) kicked_.notify_one();
  // By the kernel's thread id, not the pthread_t, which is invalid after Join: at worst a later thread of ours has the number
  // and its system call is interrupted by a handler that does nothing.
  if (in_guest_.load(std::memory_order_seq_cst)) {
    ::syscall(SYS_tgkill, process_id_, thread_id_.load(std::memory_order_relaxed), KickSignal());
  }
}

void VirtualProcessor::Join() noexcept {
  if (!started_) return;
  ::pthread_join(thread_, nullptr);
  started_ = false;
}

void* VirtualProcessor::ThreadMain(void* self) {
  // The mask is inherited, and an embedding program may block every signal in the thread that starts the machine.
  sigset_t kick;
  ::sigemptyset(&kick);
  ::sigaddset(&kick, KickSignal());
  ::pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
  auto* const processor = static_cast<VirtualProcessor*>(self);
  processor->thread_id_.store(static_cast<int>(::syscall(SYS_gettid)), std::memory_order_relaxed);
  // Not by whoever starts it: naming another thread opens a file.
  ::pthread_setname_np(::pthread_self(), absl::StrCat("vp-", processor->vcpu().index()).c_str());
  processor->FetchRegisters();
  if (processor->Confine()) processor->RunLoop();
  if (processor->environment_.requests != nullptr) processor->environment_.requests->Leave(processor->vcpu().index());
  return nullptr;
}

bool VirtualProcessor::Confine() noexcept {
  if (environment_.confine == nullptr) return true;
  const absl::Status status = (*environment_.confine)();
  if (status.ok()) return true;
  environment_.control.RequestEnd(MachineEnd::kInternalError,
                                  absl::StrCat("virtual processor ", vcpu().index(), ": ", status.message()));
  return false;
}

// A level that has not run yet may be asked for its registers, or be switched to.
void VirtualProcessor::FetchRegisters() noexcept {
  if (environment_.scheduler == nullptr) return;
  for (const Level& level : levels_) {
    if (!level.vcpu->FetchSyncedRegs()) Fail("KVM does not tell registers");
  }
}

void VirtualProcessor::RunLoop() noexcept {
  bool interrupted = true;
  while (!failed_) {
    if (interrupted || kicked_.load(std::memory_order_relaxed)) {
      for (const Level& level : levels_) level.vcpu->ClearExitRequest();
      // acq_rel: the other side of Kick's. The clearing above is before it, PrepareToEnter and the look at stop_ after it.
      kicked_.exchange(false, std::memory_order_acq_rel);
      interrupted = false;
    }
    if (stop_.load(std::memory_order_acquire)) return;
    if (!PrepareToEnter()) {
      if (failed_) return;
      kicked_.wait(false, std::memory_order_relaxed);
      continue;
    }
    in_guest_.store(true, std::memory_order_seq_cst);
    const kvm::RunResult result = active_vcpu().Run();
    in_guest_.store(false, std::memory_order_release);
    left_by_call_ = false;
    if (environment_.scheduler != nullptr) environment_.scheduler->AfterExit();
    switch (result) {
      case kvm::RunResult::kExit:
        unsettled_ = true;
        if (!HandleExit()) return;
        break;
      case kvm::RunResult::kInterrupted:
        unsettled_ = false;
        interrupted = true;
        Count(stats_.interrupted);
        break;
      case kvm::RunResult::kMemoryFault:
        unsettled_ = false;
        if (!HandleMemoryFault()) return;
        break;
      case kvm::RunResult::kError:
        ReportFailure(absl::StrCat("KVM_RUN failed: ", std::strerror(active_vcpu().last_error())));
        return;
    }
  }
}

bool VirtualProcessor::PrepareToEnter() noexcept {
  if (environment_.scheduler != nullptr) return environment_.scheduler->BeforeEntry() == LevelScheduler::Turn::kRun && !failed_;
  if (guest() != nullptr) guest()->PrepareToEnter();
  return !failed_;
}

bool VirtualProcessor::SwitchTo(size_t level) noexcept {
  if (level == active_) return !failed_;
  if (!Settle()) return false;
  // An exception that KVM holds back would be lost with the registers that are loaded when this level runs again. A level that calls
  // has none: it came to its OUT.
  const bool called = std::exchange(left_by_call_, false);
  if ((!called && !active_vcpu().KeepException()) || !shared_.CarryOver(active_vcpu(), active_, *levels_[level].vcpu, level)) {
    Fail("KVM does not carry registers from one trust level to another");
    return false;
  }
  active_ = level;
  Count(stats_.switches);
  return true;
}

void VirtualProcessor::Fail(absl::string_view what) noexcept {
  ReportFailure(what);
  failed_ = true;
}

bool VirtualProcessor::Settle() noexcept {
  // A string access that is under way exits once more for its next part, and that part is answered too.
  if (in_exit_) return true;
  while (unsettled_ && !failed_) {
    // Stays set, so that a kick's is never cleared here: the loop's next KVM_RUN returns at once and clears it in its place.
    active_vcpu().RequestExit();
    switch (active_vcpu().Run()) {
      case kvm::RunResult::kExit:
        failed_ = !HandleExit();
        break;
      case kvm::RunResult::kInterrupted:
        unsettled_ = false;
        break;
      case kvm::RunResult::kMemoryFault:
        unsettled_ = false;
        failed_ = !HandleMemoryFault();
        break;
      case kvm::RunResult::kError:
        Fail(absl::StrCat("KVM_RUN failed: ", std::strerror(active_vcpu().last_error())));
        break;
    }
  }
  return !failed_;
}

bool VirtualProcessor::HandleMemoryFault() noexcept {
  Count(stats_.memory_fault);
  if (guest() != nullptr && guest()->OnRefusedMemory()) return true;
  if (guest() != nullptr && guest()->OnInaccessibleMemory()) return Inject(kGeneralProtection, 0);
  ReportFailure("KVM could not reach the guest memory that it was told to use");
  return false;
}

bool VirtualProcessor::Inject(uint8_t vector, std::optional<uint32_t> error_code) noexcept {
  left_by_call_ = false;
  if (active_vcpu().InjectException(vector, error_code)) return true;
  environment_.control.RequestEnd(MachineEnd::kTripleFault,
                                  absl::StrCat("virtual processor ", active_vcpu().index(), " had a fault in a double fault"));
  return false;
}

bool VirtualProcessor::HandleExit() noexcept {
  in_exit_ = true;
  const bool go_on = DispatchExit();
  in_exit_ = false;
  if (!put_back_) return go_on;
  put_back_ = false;
  return go_on && PutBack();
}

// KVM finishes what it has begun, with answers that mean nothing, and its registers are then replaced by those of before. There is no
// way to make it forget: but what is left of one iteration has no effects, since exits are answered here, and `data` of an exit that
// was refused was filled by who refused it.
bool VirtualProcessor::PutBack() noexcept {
  kvm::Vcpu& vcpu = active_vcpu();
  const kvm_regs before = vcpu.synced_regs();
  const auto events = vcpu.GetVcpuEvents();
  if (vcpu.run().exit_reason == KVM_EXIT_MMIO) {
    // A repeated instruction would go on to its next iterations.
    vcpu.synced_regs().rcx = 1;
    vcpu.MarkSyncedRegsDirty();
  }
  while (unsettled_ && !failed_) {
    vcpu.RequestExit();
    switch (vcpu.Run()) {
      case kvm::RunResult::kExit: {
        kvm_run& run = vcpu.run();
        if (run.exit_reason == KVM_EXIT_IO) {
          if (run.io.direction == KVM_EXIT_IO_IN) std::ranges::fill(vcpu.io_data(), std::byte{0xff});
        } else if (run.exit_reason == KVM_EXIT_MMIO) {
          if (run.mmio.is_write == 0) std::memset(run.mmio.data, 0xff, sizeof(run.mmio.data));
        } else if (!DispatchExit()) {
          return false;
        }
        break;
      }
      case kvm::RunResult::kInterrupted:
      case kvm::RunResult::kMemoryFault:
        unsettled_ = false;
        break;
      case kvm::RunResult::kError:
        Fail(absl::StrCat("KVM_RUN failed: ", std::strerror(vcpu.last_error())));
        break;
    }
  }
  // Loading them also drops the trap that KVM raises behind an instruction when the guest single-steps.
  vcpu.synced_regs() = before;
  vcpu.MarkSyncedRegsDirty();
  if (events.ok() && events->interrupt.shadow != 0) {
    auto now = vcpu.GetVcpuEvents();
    if (now.ok()) {
      now->exception.pending = 0;
      now->interrupt.shadow = events->interrupt.shadow;
      now->flags = KVM_VCPUEVENT_VALID_SHADOW;
      if (!vcpu.SetVcpuEvents(*now).ok()) Fail("KVM does not take the shadow of an instruction");
    }
  }
  return !failed_;
}

bool VirtualProcessor::DispatchExit() noexcept {
  kvm_run& run = active_vcpu().run();
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      if (IsHypercall()) return HandleHypercall();
      Count(stats_.pio);
      HandlePio();
      return true;
    case KVM_EXIT_MMIO:
      Count(stats_.mmio);
      HandleMmio();
      return true;
    case KVM_EXIT_X86_RDMSR:
      HandleMsr(false);
      return true;
    case KVM_EXIT_X86_WRMSR:
      HandleMsr(true);
      return true;
    case KVM_EXIT_HYPERV:
      // KVM's own SynIC telling of a register, or a hypercall that KVM knows and leaves to us. Ours come by the port, so the guest
      // has made this one beside the page: refused, and never a reason to end.
      Count(stats_.other);
      if (run.hyperv.type == KVM_EXIT_HYPERV_HCALL) run.hyperv.u.hcall.result = kInvalidHypercallCode;
      return true;
    case KVM_EXIT_SHUTDOWN:
      environment_.control.RequestEnd(MachineEnd::kTripleFault,
                                      absl::StrCat("virtual processor ", active_vcpu().index(), " had a triple fault"));
      return false;
    case KVM_EXIT_SYSTEM_EVENT:
      switch (run.system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
          environment_.control.RequestEnd(MachineEnd::kPoweredOff, "the guest powered off");
          return false;
        case KVM_SYSTEM_EVENT_RESET:
          environment_.control.RequestEnd(MachineEnd::kRebooted, "the guest asked for a reset");
          return false;
        case KVM_SYSTEM_EVENT_CRASH:
          environment_.control.RequestEnd(MachineEnd::kPanicked, "the guest reported a crash");
          return false;
        default:
          ReportFailure(absl::StrCat("unknown system event ", run.system_event.type));
          return false;
      }
    case KVM_EXIT_HLT:
      unsettled_ = false;  // KVM has left the instruction behind
      Count(stats_.halt);
      if (guest() != nullptr) guest()->OnHalt();
      return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      unsettled_ = false;  // between two instructions
      Count(stats_.interrupted);
      return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
      Count(stats_.interrupted);
      return true;
    case KVM_EXIT_FAIL_ENTRY:
      ReportFailure(absl::StrCat("the processor refused to enter the guest, reason 0x",
                                 absl::Hex(run.fail_entry.hardware_entry_failure_reason)));
      return false;
    case KVM_EXIT_INTERNAL_ERROR:
      ReportFailure(run.internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                        ? "KVM could not emulate an instruction"
                        : absl::StrCat("KVM internal error ", run.internal.suberror));
      return false;
    default:
      Count(stats_.other);
      ReportFailure(absl::StrCat("unexpected exit ", run.exit_reason));
      return false;
  }
}

void VirtualProcessor::HandlePio() noexcept {
  const auto& io = active_vcpu().run().io;
  const std::span<std::byte> data = active_vcpu().io_data();
  if (data.empty()) return;
  if (guest() != nullptr) {
    const PortAccess access{.port = io.port, .bytes = io.size, .count = io.count, .write = io.direction == KVM_EXIT_IO_OUT};
    const AccessAnswer answer = guest()->AccessPort(access, data);
    put_back_ = answer == AccessAnswer::kNotMade;
    if (answer != AccessAnswer::kUnclaimed) return;
  }
  // `count` is above 1 for string instructions: one access each, to the same port. A device may take its deadline for
  // each of thousands; who waits for this thread to stop waits for one.
  for (uint32_t i = 0; i < io.count && !stop_.load(std::memory_order_acquire); ++i) {
    const std::span<std::byte> one = data.subspan(size_t{i} * io.size, io.size);
    const bool claimed = io.direction == KVM_EXIT_IO_OUT ? environment_.ports.Write(io.port, one)
                                                         : environment_.ports.Read(io.port, one);
    if (!claimed) Count(stats_.unclaimed);
  }
}

void VirtualProcessor::WritePort(uint16_t port, std::span<const std::byte> data) noexcept {
  if (!environment_.ports.Write(port, data)) Count(stats_.unclaimed);
}

void VirtualProcessor::HandleMsr(bool write) noexcept {
  Count(stats_.msr);
  auto& msr = active_vcpu().run().msr;
  if (guest() != nullptr && guest()->OnInterceptedMsr(msr.index, write)) {
    put_back_ = true;
    msr.error = 0;
    return;
  }
  bool known = false;
  if (guest() != nullptr) {
    if (write) {
      known = guest()->WriteMsr(msr.index, msr.data);
    } else {
      uint64_t value = 0;
      known = guest()->ReadMsr(msr.index, value);
      msr.data = value;
    }
  }
  msr.error = known ? 0 : 1;  // KVM injects #GP
}

bool VirtualProcessor::IsHypercall() const noexcept {
  const auto& io = active_vcpu().run().io;
  return guest() != nullptr && io.port == environment_.hypercall_port && io.direction == KVM_EXIT_IO_OUT &&
         io.size == 1 && io.count == 1;
}

bool VirtualProcessor::HandleHypercall() noexcept {
  constexpr uint64_t kEferLma = 1 << 10, kCr0Pe = 1, kRflagsVm = 1 << 17;
  kvm_regs& regs = active_vcpu().synced_regs();
  const kvm_sregs& sregs = active_vcpu().synced_sregs();
  HypercallRegisters call{.rax = regs.rax,
                          .rbx = regs.rbx,
                          .rcx = regs.rcx,
                          .rdx = regs.rdx,
                          .rsi = regs.rsi,
                          .rdi = regs.rdi,
                          .r8 = regs.r8,
                          .rip = regs.rip + sregs.cs.base,
                          .long_mode = (sregs.efer & kEferLma) != 0 && sregs.cs.l != 0,
                          .protected_mode = (sregs.cr0 & kCr0Pe) != 0 && (regs.rflags & kRflagsVm) == 0,
                          .cpl = sregs.ss.dpl};  // the processor's own place for it, and KVM's
  VcpuXmm xmm(active_vcpu());
  const HypercallOutcome outcome = guest()->Hypercall(call, xmm);
  if (outcome == HypercallOutcome::kNotOffered) {
    Count(stats_.pio);
    HandlePio();
    return true;
  }
  Count(stats_.hypercall);
  if (outcome != HypercallOutcome::kUndefinedOpcode) {
    regs.rax = call.rax;
    regs.rbx = call.rbx;
    regs.rcx = call.rcx;
    regs.rdx = call.rdx;
    regs.rsi = call.rsi;
    regs.rdi = call.rdi;
    regs.r8 = call.r8;
  }
  switch (outcome) {
    case HypercallOutcome::kDone: break;  // RIP still is the OUT's, and KVM goes on behind it
    case HypercallOutcome::kSwitchVtl:
      // Nothing is left for KVM to complete: another level may run, and look at these registers, before this one does.
      regs.rip += kOutBytes;
      unsettled_ = false;
      left_by_call_ = true;
      break;
    default: regs.rip -= 1; break;
  }
  active_vcpu().MarkSyncedRegsDirty();
  return outcome != HypercallOutcome::kUndefinedOpcode || Inject(kUndefinedOpcode, std::nullopt);
}

void VirtualProcessor::HandleMmio() noexcept {
  auto& mmio = active_vcpu().run().mmio;
  const size_t bytes = mmio.len <= sizeof(mmio.data) ? mmio.len : sizeof(mmio.data);
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(mmio.data), bytes);
  if (guest() != nullptr) {
    const AccessAnswer answer = guest()->AccessMemory(mmio.phys_addr, data, mmio.is_write != 0);
    put_back_ = answer == AccessAnswer::kNotMade;
    if (answer != AccessAnswer::kUnclaimed) return;
  }
  const bool claimed = mmio.is_write != 0 ? environment_.memory.Write(mmio.phys_addr, data)
                                          : environment_.memory.Read(mmio.phys_addr, data);
  if (!claimed) Count(stats_.unclaimed);
}

void VirtualProcessor::ReportFailure(absl::string_view what) noexcept {
  std::string text = absl::StrCat("virtual processor ", active_vcpu().index(), ": ", what);
  if (const auto regs = active_vcpu().GetRegs(); regs.ok()) absl::StrAppend(&text, " (rip 0x", absl::Hex(regs->rip), ")");
  environment_.control.RequestEnd(MachineEnd::kInternalError, text);
}

}  // namespace vmm
