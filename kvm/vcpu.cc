#include "kvm/vcpu.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

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
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return RunResult::kExit;
  last_error_ = errno;
  switch (last_error_) {
    case EINTR:
    case EAGAIN: return RunResult::kInterrupted;
    case EFAULT: return RunResult::kMemoryFault;
    default: return RunResult::kError;
  }
}

std::span<std::byte> Vcpu::io_data() noexcept {
  const auto& io = run_->io;
  const uint64_t bytes = uint64_t{io.size} * io.count;
  if (io.data_offset > run_bytes_ || bytes > run_bytes_ - io.data_offset) return {};
  return {reinterpret_cast<std::byte*>(run_) + io.data_offset, bytes};
}

// relaxed, both: KVM reads the byte itself; the flag that says why comes with its own ordering from the caller.
void Vcpu::RequestExit() noexcept {
  std::atomic_ref<uint8_t>(run_->immediate_exit).store(1, std::memory_order_relaxed);
}
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

absl::StatusOr<uint64_t> Vcpu::GetMsr(uint32_t index) const {
  const kvm_msr_entry entry{.index = index, .reserved = 0, .data = 0};
  FlexibleArray<kvm_msrs, kvm_msr_entry> argument(std::span(&entry, 1));
  argument.header->nmsrs = 1;
  argument.header->pad = 0;
  if (Ioctl(fd_.get(), KVM_GET_MSRS, argument.header) != 1) {
    return absl::FailedPreconditionError(absl::StrCat("get MSR 0x", absl::Hex(index), " of vCPU ", index_));
  }
  kvm_msr_entry out;
  std::memcpy(&out, argument.header->entries, sizeof(out));
  return out.data;
}

absl::Status Vcpu::SetMpState(uint32_t state) {
  const kvm_mp_state argument{.mp_state = state};
  if (Ioctl(fd_.get(), KVM_SET_MP_STATE, &argument) != 0) {
    return KvmStatus(errno, absl::StrCat("set run state ", state, " of vCPU ", index_));
  }
  return absl::OkStatus();
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

uint32_t Vcpu::TscKhz() const noexcept {
  const int khz = Ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0UL);
  return khz > 0 ? static_cast<uint32_t>(khz) : 0;
}

}  // namespace vmm::kvm
