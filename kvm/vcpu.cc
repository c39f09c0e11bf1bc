#include "kvm/vcpu.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kvm/ioctl.h"

namespace vmm::kvm {
namespace {

// A kernel struct with a flexible array at its end, in whole words.
template <typename Header, typename Entry>
struct FlexibleArray {
  static constexpr size_t kMaxEntries = 4096;  // far above what any caller has
  FlexibleArray(std::span<const Entry> entries) {
    if (entries.size() > kMaxEntries) std::abort();
    words.resize((sizeof(Header) + entries.size_bytes() + 7) / 8);
    header = reinterpret_cast<Header*>(words.data());
    std::memcpy(reinterpret_cast<std::byte*>(words.data()) + sizeof(Header), entries.data(), entries.size_bytes());
  }
  std::vector<uint64_t> words;
  Header* header = nullptr;
};

// kvm_msrs with one entry.
struct OneMsr {
  OneMsr(uint32_t msr, uint64_t data) noexcept : index(msr), value(data) {}
  uint32_t count = 1, pad = 0;
  uint32_t index, reserved = 0;
  uint64_t value;
};
static_assert(sizeof(OneMsr) == sizeof(kvm_msrs) + sizeof(kvm_msr_entry) && offsetof(OneMsr, value) == 16);

constexpr uint8_t kDoubleFault = 8;

}  // namespace

absl::StatusOr<std::unique_ptr<Vcpu>> Vcpu::Create(int vm_fd, uint32_t index, uint32_t run_bytes) {
  const int raw = Ioctl(vm_fd, KVM_CREATE_VCPU, static_cast<unsigned long>(index));
  if (raw < 0) return KvmStatus(errno, absl::StrCat("create vCPU ", index));
  OwnedFd fd(raw);
  void* const map = ::mmap(nullptr, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return KvmStatus(errno, absl::StrCat("map run page of vCPU ", index));
  return std::unique_ptr<Vcpu>(new Vcpu(std::move(fd), static_cast<kvm_run*>(map), run_bytes, index));
}

Vcpu::~Vcpu() { ::munmap(run_, run_bytes_); }

RunResult Vcpu::Run() noexcept {
  // KVM leaves the reason as it was where it has none to tell: one fault's details would be found at the next.
  if (run_->exit_reason == KVM_EXIT_MEMORY_FAULT) run_->exit_reason = KVM_EXIT_UNKNOWN;
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return RunResult::kExit;
  last_error_ = errno;
  switch (last_error_) {
    case EINTR:
    case EAGAIN: return RunResult::kInterrupted;
    case EFAULT: return RunResult::kMemoryFault;
    default: return RunResult::kError;
  }
}

std::optional<MemoryFault> Vcpu::memory_fault() const noexcept {
  if (run_->exit_reason != KVM_EXIT_MEMORY_FAULT) return std::nullopt;
  const auto& fault = run_->memory_fault;
  return MemoryFault{.gpa = Gpa(fault.gpa), .bytes = fault.size, .is_private = (fault.flags & KVM_MEMORY_EXIT_FLAG_PRIVATE) != 0};
}

std::span<std::byte> Vcpu::io_data() noexcept {
  const auto& io = run_->io;
  const uint64_t bytes = uint64_t{io.size} * io.count;
  if (io.data_offset > run_bytes_ || bytes > run_bytes_ - io.data_offset) return {};
  return {reinterpret_cast<std::byte*>(run_) + io.data_offset, bytes};
}

// seq_cst: who then looks whether the vCPU is running must not have looked before (VirtualProcessor::Kick).
void Vcpu::RequestExit() noexcept {
  std::atomic_ref<uint8_t>(run_->immediate_exit).store(1, std::memory_order_seq_cst);
}
// relaxed: whoever clears says so to others by a flag of its own, with an ordering of its own.
void Vcpu::ClearExitRequest() noexcept {
  std::atomic_ref<uint8_t>(run_->immediate_exit).store(0, std::memory_order_relaxed);
}

absl::Status Vcpu::SetCpuid(std::span<const kvm_cpuid_entry2> entries) {
  FlexibleArray<kvm_cpuid2, kvm_cpuid_entry2> argument(entries);
  argument.header->nent = static_cast<uint32_t>(entries.size());
  argument.header->padding = 0;
  if (Ioctl(fd_.get(), KVM_SET_CPUID2, argument.header) != 0) {
    return KvmStatus(errno, absl::StrCat("set CPUID of vCPU ", index_));
  }
  return absl::OkStatus();
}

absl::StatusOr<kvm_regs> Vcpu::GetRegs() const {
  kvm_regs regs{};
  if (Ioctl(fd_.get(), KVM_GET_REGS, &regs) != 0) return KvmStatus(errno, absl::StrCat("get registers of vCPU ", index_));
  return regs;
}

absl::Status Vcpu::SetRegs(const kvm_regs& regs) {
  if (Ioctl(fd_.get(), KVM_SET_REGS, &regs) != 0) return KvmStatus(errno, absl::StrCat("set registers of vCPU ", index_));
  return absl::OkStatus();
}

absl::StatusOr<kvm_sregs> Vcpu::GetSregs() const {
  kvm_sregs sregs{};
  if (Ioctl(fd_.get(), KVM_GET_SREGS, &sregs) != 0) {
    return KvmStatus(errno, absl::StrCat("get system registers of vCPU ", index_));
  }
  return sregs;
}

absl::Status Vcpu::SetSregs(const kvm_sregs& sregs) {
  if (Ioctl(fd_.get(), KVM_SET_SREGS, &sregs) != 0) {
    return KvmStatus(errno, absl::StrCat("set system registers of vCPU ", index_));
  }
  return absl::OkStatus();
}

absl::StatusOr<kvm_fpu> Vcpu::GetFpu() const {
  kvm_fpu fpu{};
  if (Ioctl(fd_.get(), KVM_GET_FPU, &fpu) != 0) return KvmStatus(errno, absl::StrCat("get FPU of vCPU ", index_));
  return fpu;
}

// 4096 bytes do: KVM uses more only for features that a process has asked its kernel for (arch_prctl), and this one does not.
bool Vcpu::GetXsave(kvm_xsave& out) const noexcept { return Ioctl(fd_.get(), KVM_GET_XSAVE, &out) == 0; }
bool Vcpu::SetXsave(const kvm_xsave& xsave) noexcept { return Ioctl(fd_.get(), KVM_SET_XSAVE, &xsave) == 0; }

absl::Status Vcpu::SetFpu(const kvm_fpu& fpu) {
  if (Ioctl(fd_.get(), KVM_SET_FPU, &fpu) != 0) return KvmStatus(errno, absl::StrCat("set FPU of vCPU ", index_));
  return absl::OkStatus();
}

absl::Status Vcpu::SetMsrs(std::span<const kvm_msr_entry> msrs) {
  FlexibleArray<kvm_msrs, kvm_msr_entry> argument(msrs);
  argument.header->nmsrs = static_cast<uint32_t>(msrs.size());
  argument.header->pad = 0;
  const int done = Ioctl(fd_.get(), KVM_SET_MSRS, argument.header);
  if (done < 0) return KvmStatus(errno, absl::StrCat("set MSRs of vCPU ", index_));
  if (static_cast<size_t>(done) != msrs.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("set MSR 0x", absl::Hex(msrs[static_cast<size_t>(done)].index), " of vCPU ", index_, ": KVM refused it"));
  }
  return absl::OkStatus();
}

bool Vcpu::SetMsr(uint32_t index, uint64_t value) noexcept {
  OneMsr argument(index, value);
  return Ioctl(fd_.get(), KVM_SET_MSRS, &argument) == 1;
}

absl::StatusOr<uint64_t> Vcpu::GetMsr(uint32_t index) const {
  OneMsr argument(index, 0);
  if (Ioctl(fd_.get(), KVM_GET_MSRS, &argument) != 1) {
    return absl::FailedPreconditionError(absl::StrCat("get MSR 0x", absl::Hex(index), " of vCPU ", index_));
  }
  return argument.value;
}

absl::StatusOr<uint32_t> Vcpu::GetMpState() const {
  kvm_mp_state state{};
  if (Ioctl(fd_.get(), KVM_GET_MP_STATE, &state) != 0) return KvmStatus(errno, absl::StrCat("get run state of vCPU ", index_));
  return state.mp_state;
}

absl::Status Vcpu::SetMpState(uint32_t state) {
  const kvm_mp_state argument{.mp_state = state};
  if (Ioctl(fd_.get(), KVM_SET_MP_STATE, &argument) != 0) {
    return KvmStatus(errno, absl::StrCat("set run state ", state, " of vCPU ", index_));
  }
  return absl::OkStatus();
}

absl::StatusOr<kvm_vcpu_events> Vcpu::GetVcpuEvents() const {
  kvm_vcpu_events events{};
  if (Ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) return KvmStatus(errno, absl::StrCat("get events of vCPU ", index_));
  return events;
}

absl::Status Vcpu::SetVcpuEvents(const kvm_vcpu_events& events) {
  if (Ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &events) != 0) return KvmStatus(errno, absl::StrCat("set events of vCPU ", index_));
  return absl::OkStatus();
}

bool Vcpu::InjectException(uint8_t vector, std::optional<uint32_t> error_code) noexcept {
  kvm_vcpu_events events{};
  if (Ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) return false;
  if (events.exception.injected != 0 || events.exception.pending != 0) {
    if (events.exception.nr == kDoubleFault) return false;
    vector = kDoubleFault;
    error_code = 0;
  }
  // `injected`, not `pending`: loading dirty registers drops a pending exception, and an injected one is on its way already.
  events.exception.injected = 1;
  events.exception.pending = 0;
  events.exception.nr = vector;
  events.exception.has_error_code = error_code.has_value() ? 1 : 0;
  events.exception.error_code = error_code.value_or(0);
  // Nothing else is touched: without these flags KVM leaves alone what may have changed meanwhile.
  events.flags = 0;
  return Ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &events) == 0;
}

absl::Status Vcpu::EnableCap(uint32_t capability, uint64_t argument) {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  if (Ioctl(fd_.get(), KVM_ENABLE_CAP, &cap) != 0) {
    return KvmStatus(errno, absl::StrCat("enable KVM capability ", capability, " on vCPU ", index_));
  }
  return absl::OkStatus();
}

bool Vcpu::KeepException() noexcept {
  kvm_vcpu_events events{};
  if (Ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) return false;
  if (events.exception.pending == 0) return true;
  events.exception.injected = 1;
  events.exception.pending = 0;
  events.flags = 0;
  return Ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &events) == 0;
}

bool Vcpu::Interrupt(uint8_t vector) noexcept {
  const kvm_interrupt interrupt{.irq = vector};
  return Ioctl(fd_.get(), KVM_INTERRUPT, &interrupt) == 0;
}

bool Vcpu::Nmi() noexcept { return Ioctl(fd_.get(), KVM_NMI, 0UL) == 0; }

bool Vcpu::HasDeliverableInterrupt() noexcept {
  constexpr uint64_t kRflagsIf = 1 << 9;
  constexpr size_t kTpr = 0x80, kIsr = 0x100, kIrr = 0x200;
  if ((run_->s.regs.regs.rflags & kRflagsIf) == 0) return false;
  kvm_lapic_state apic{};
  if (Ioctl(fd_.get(), KVM_GET_LAPIC, &apic) != 0) return false;
  const auto word = [&apic](size_t offset) {
    uint32_t value;
    std::memcpy(&value, apic.regs + offset, sizeof(value));
    return value;
  };
  // The highest of 256 bits in eight words, one each 16 bytes.
  const auto highest = [&word](size_t base) {
    for (uint32_t n = 8; n-- > 0;) {
      const uint32_t bits = word(base + 16 * n);
      if (bits != 0) return 32 * n + 31 - static_cast<uint32_t>(std::countl_zero(bits));
    }
    return uint32_t{0};
  };
  const uint32_t priority = std::max(word(kTpr) >> 4 & 0xf, highest(kIsr) >> 4);
  if (highest(kIrr) >> 4 > priority) return true;
  // A deadline that has passed is in the IRR only once the vCPU runs; KVM clears it then.
  constexpr size_t kLvtTimer = 0x320;
  constexpr uint32_t kMasked = 1 << 16, kModeMask = 3 << 17, kTscDeadlineMode = 2 << 17, kMsrTsc = 0x10, kMsrTscDeadline = 0x6e0;
  const uint32_t lvt = word(kLvtTimer);
  if ((lvt & (kMasked | kModeMask)) != kTscDeadlineMode || (lvt & 0xff) >> 4 <= priority) return false;
  OneMsr deadline(kMsrTscDeadline, 0), now(kMsrTsc, 0);
  return Ioctl(fd_.get(), KVM_GET_MSRS, &deadline) == 1 && deadline.value != 0 && Ioctl(fd_.get(), KVM_GET_MSRS, &now) == 1 &&
         now.value >= deadline.value;
}

bool Vcpu::GetDebugRegs(kvm_debugregs& out) const noexcept { return Ioctl(fd_.get(), KVM_GET_DEBUGREGS, &out) == 0; }
bool Vcpu::SetDebugRegs(const kvm_debugregs& registers) noexcept {
  return Ioctl(fd_.get(), KVM_SET_DEBUGREGS, &registers) == 0;
}
bool Vcpu::GetXcrs(kvm_xcrs& out) const noexcept { return Ioctl(fd_.get(), KVM_GET_XCRS, &out) == 0; }
bool Vcpu::SetXcrs(const kvm_xcrs& xcrs) noexcept { return Ioctl(fd_.get(), KVM_SET_XCRS, &xcrs) == 0; }

bool Vcpu::FetchSyncedRegs() noexcept {
  return Ioctl(fd_.get(), KVM_GET_REGS, &run_->s.regs.regs) == 0 && Ioctl(fd_.get(), KVM_GET_SREGS, &run_->s.regs.sregs) == 0;
}

absl::StatusOr<uint64_t> Vcpu::GetTscOffset() const {
  uint64_t offset = 0;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  if (Ioctl(fd_.get(), KVM_GET_DEVICE_ATTR, &attribute) != 0) return KvmStatus(errno, absl::StrCat("get TSC offset of vCPU ", index_));
  return offset;
}

absl::Status Vcpu::SetTscOffset(uint64_t offset) {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  if (Ioctl(fd_.get(), KVM_SET_DEVICE_ATTR, &attribute) != 0) return KvmStatus(errno, absl::StrCat("set TSC offset of vCPU ", index_));
  return absl::OkStatus();
}

bool Vcpu::PreFault(Gpa start, uint64_t bytes) noexcept {
  kvm_pre_fault_memory range{};
  range.gpa = start.raw();
  range.size = bytes;
  // KVM moves `gpa` on, and stops early only for a signal.
  while (range.size > 0) {
    if (Ioctl(fd_.get(), KVM_PRE_FAULT_MEMORY, &range) != 0) return false;
  }
  return true;
}

void Vcpu::EnableSyncRegs(bool with_sregs) noexcept {
  run_->kvm_valid_regs = KVM_SYNC_X86_REGS | (with_sregs ? KVM_SYNC_X86_SREGS : 0);
}

uint32_t Vcpu::TscKhz() const noexcept {
  const int khz = Ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0UL);
  return khz > 0 ? static_cast<uint32_t>(khz) : 0;
}

}  // namespace vmm::kvm
