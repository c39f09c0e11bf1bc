#include "vcpu/virtual_processor.h"

#include <signal.h>

#include <cerrno>
#include <cstring>

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

absl::Status InstallKickHandler() {
  struct sigaction action{};
  action.sa_handler = [](int) {};  // its only effect is EINTR
  if (::sigaction(KickSignal(), &action, nullptr) != 0) return ErrnoStatus(errno, "install vCPU signal handler");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<VirtualProcessor>> VirtualProcessor::Create(std::unique_ptr<kvm::Vcpu> vcpu,
                                                                           Environment environment) {
  static const absl::Status installed = InstallKickHandler();
  if (!installed.ok()) return installed;
  return std::unique_ptr<VirtualProcessor>(new VirtualProcessor(std::move(vcpu), environment));
}

VirtualProcessor::~VirtualProcessor() {
  RequestStop();
  Join();
}

absl::Status VirtualProcessor::Start() {
  // Guest exits need little stack; the default of 8 MiB is only address space, but 64 VPs of it look alarming in maps.
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 256 * 1024);
  const int error = ::pthread_create(&thread_, &attributes, &ThreadMain, this);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start thread of virtual processor ", vcpu_->index()));
  started_ = true;
  ::pthread_setname_np(thread_, absl::StrCat("vp-", vcpu_->index()).c_str());
  return absl::OkStatus();
}

void VirtualProcessor::RequestStop() noexcept {
  stop_.store(true, std::memory_order_release);
  // First the flag that KVM_RUN looks at on its way in, then the signal that brings out who is already inside.
  vcpu_->RequestExit();
  if (started_) ::pthread_kill(thread_, KickSignal());
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
  static_cast<VirtualProcessor*>(self)->RunLoop();
  return nullptr;
}

void VirtualProcessor::RunLoop() noexcept {
  while (!stop_.load(std::memory_order_acquire)) {
    switch (vcpu_->Run()) {
      case kvm::RunResult::kExit:
        if (!HandleExit()) return;
        break;
      case kvm::RunResult::kInterrupted:
        Count(stats_.interrupted);
        break;
      case kvm::RunResult::kMemoryFault:
        ReportFailure("KVM could not reach the guest memory that it was told to use");
        return;
      case kvm::RunResult::kError:
        ReportFailure(absl::StrCat("KVM_RUN failed: ", std::strerror(vcpu_->last_error())));
        return;
    }
  }
}

bool VirtualProcessor::HandleExit() noexcept {
  kvm_run& run = vcpu_->run();
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      Count(stats_.pio);
      HandlePio();
      return true;
    case KVM_EXIT_MMIO:
      Count(stats_.mmio);
      HandleMmio();
      return true;
    case KVM_EXIT_SHUTDOWN:
      environment_.control.RequestEnd(MachineEnd::kTripleFault,
                                      absl::StrCat("virtual processor ", vcpu_->index(), " had a triple fault"));
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
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
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
  const auto& io = vcpu_->run().io;
  const std::span<std::byte> data = vcpu_->io_data();
  if (data.empty()) return;
  // `count` is above 1 for string instructions: one access each, to the same port. A device may take its deadline for
  // each of thousands; who waits for this thread to stop waits for one.
  for (uint32_t i = 0; i < io.count && !stop_.load(std::memory_order_acquire); ++i) {
    const std::span<std::byte> one = data.subspan(size_t{i} * io.size, io.size);
    const bool claimed = io.direction == KVM_EXIT_IO_OUT ? environment_.ports.Write(io.port, one)
                                                         : environment_.ports.Read(io.port, one);
    if (!claimed) Count(stats_.unclaimed);
  }
}

void VirtualProcessor::HandleMmio() noexcept {
  auto& mmio = vcpu_->run().mmio;
  const size_t bytes = mmio.len <= sizeof(mmio.data) ? mmio.len : sizeof(mmio.data);
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(mmio.data), bytes);
  const bool claimed = mmio.is_write != 0 ? environment_.memory.Write(mmio.phys_addr, data)
                                          : environment_.memory.Read(mmio.phys_addr, data);
  if (!claimed) Count(stats_.unclaimed);
}

void VirtualProcessor::ReportFailure(absl::string_view what) noexcept {
  std::string text = absl::StrCat("virtual processor ", vcpu_->index(), ": ", what);
  if (const auto regs = vcpu_->GetRegs(); regs.ok()) absl::StrAppend(&text, " (rip 0x", absl::Hex(regs->rip), ")");
  environment_.control.RequestEnd(MachineEnd::kInternalError, text);
}

}  // namespace vmm
