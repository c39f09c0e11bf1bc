#include "kvm/fake_kvm.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/owned_fd.h"

namespace vmm::kvm {
namespace {

constexpr uint32_t kRunBytes = 3 * 4096;

FakeKvm* g_kvm = nullptr;
// Descriptors of VMs by themselves, of vCPUs by their VM and number.
std::map<int, std::pair<int, FakeVcpu*>> g_descriptors;

int Refuse(int error) {
  errno = error;
  return -1;
}

template <typename T>
int Get(const T& from, unsigned long argument) {
  std::memcpy(reinterpret_cast<void*>(argument), &from, sizeof(T));
  return 0;
}
template <typename T>
int Set(T& to, unsigned long argument) {
  std::memcpy(&to, reinterpret_cast<const void*>(argument), sizeof(T));
  return 0;
}

int Msrs(FakeVcpu& vcpu, bool set, unsigned long argument) {
  auto* const header = reinterpret_cast<kvm_msrs*>(argument);
  for (uint32_t i = 0; i < header->nmsrs; ++i) {
    kvm_msr_entry& entry = header->entries[i];
    const auto found = vcpu.msrs.find(entry.index);
    if (found == vcpu.msrs.end()) return static_cast<int>(i);
    if (set) {
      found->second = entry.data;
    } else {
      entry.data = found->second;
    }
  }
  return static_cast<int>(header->nmsrs);
}

int Run(FakeVcpu& vcpu) {
  kvm_run& run = *vcpu.run;
  if ((run.kvm_dirty_regs & KVM_SYNC_X86_REGS) != 0) vcpu.regs = run.s.regs.regs;
  if ((run.kvm_dirty_regs & KVM_SYNC_X86_SREGS) != 0) vcpu.sregs = run.s.regs.sregs;
  run.kvm_dirty_regs = 0;
  int error = EINTR;
  if (run.immediate_exit != 0) {
    if (vcpu.completion) vcpu.completion(run);
  } else if (!vcpu.runs.empty()) {
    const auto play = std::move(vcpu.runs.front());
    vcpu.runs.pop_front();
    error = play(run);
  }
  run.s.regs.regs = vcpu.regs;
  run.s.regs.sregs = vcpu.sregs;
  return error == 0 ? 0 : Refuse(error);
}

int AnswerVcpu(FakeVcpu& vcpu, unsigned long request, unsigned long argument) {
  if (vcpu.refused.contains(request)) return Refuse(EINVAL);
  switch (request) {
    case KVM_RUN: return Run(vcpu);
    case KVM_GET_REGS: return Get(vcpu.regs, argument);
    case KVM_SET_REGS: return Set(vcpu.regs, argument);
    case KVM_GET_SREGS: return Get(vcpu.sregs, argument);
    case KVM_SET_SREGS: return Set(vcpu.sregs, argument);
    case KVM_GET_XSAVE: return Get(vcpu.xsave, argument);
    case KVM_SET_XSAVE: return Set(vcpu.xsave, argument);
    case KVM_GET_DEBUGREGS: return Get(vcpu.debug, argument);
    case KVM_SET_DEBUGREGS: return Set(vcpu.debug, argument);
    case KVM_GET_XCRS: return Get(vcpu.xcrs, argument);
    case KVM_SET_XCRS: return Set(vcpu.xcrs, argument);
    case KVM_GET_VCPU_EVENTS: return Get(vcpu.events, argument);
    case KVM_SET_VCPU_EVENTS: return Set(vcpu.events, argument);
    case KVM_GET_MP_STATE: return Get(vcpu.mp_state, argument);
    case KVM_SET_MP_STATE: return Set(vcpu.mp_state, argument);
    case KVM_GET_MSRS: return Msrs(vcpu, false, argument);
    case KVM_SET_MSRS: return Msrs(vcpu, true, argument);
    case KVM_INTERRUPT: {
      kvm_interrupt interrupt;
      Set(interrupt, argument);
      vcpu.interrupts.push_back(interrupt.irq);
      return 0;
    }
    case KVM_NMI: ++vcpu.nmis; return 0;
    case KVM_PRE_FAULT_MEMORY: {
      auto& range = *reinterpret_cast<kvm_pre_fault_memory*>(argument);
      vcpu.prefaulted.push_back(range.gpa);
      range.gpa += range.size;
      range.size = 0;
      return 0;
    }
    default: return Refuse(ENOTTY);
  }
}

OwnedFd NewDescriptor() {
  OwnedFd fd(::memfd_create("fake-kvm", MFD_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), kRunBytes) != 0) std::abort();
  return fd;
}

}  // namespace

FakeKvm::FakeKvm() {
  if (g_kvm != nullptr) std::abort();
  g_kvm = this;
}

FakeKvm::~FakeKvm() {
  for (auto& [fd, vcpus] : vms_) {
    for (auto& [index, vcpu] : vcpus) ::munmap(vcpu.run, kRunBytes);
  }
  g_descriptors.clear();
  g_kvm = nullptr;
}

std::unique_ptr<Vm> FakeKvm::CreateVm() {
  OwnedFd fd = NewDescriptor();
  vms_[fd.get()];
  g_descriptors[fd.get()] = {fd.get(), nullptr};
  return std::make_unique<Vm>(std::move(fd), kRunBytes);
}

FakeVcpu& FakeKvm::vcpu(const Vm& vm, uint32_t index) { return vms_.at(vm.fd()).at(index); }

int FakeKvm::Answer(int vm_fd, unsigned long request, unsigned long argument) {
  if (request != KVM_CREATE_VCPU) return Refuse(ENOTTY);
  FakeVcpu& vcpu = vms_.at(vm_fd)[static_cast<uint32_t>(argument)];
  OwnedFd fd = NewDescriptor();
  vcpu.run = static_cast<kvm_run*>(::mmap(nullptr, kRunBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  if (vcpu.run == MAP_FAILED) std::abort();
  g_descriptors[fd.get()] = {vm_fd, &vcpu};
  return fd.Release();
}

}  // namespace vmm::kvm

// In place of the C library's, for the whole program that this is linked into.
extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  using vmm::kvm::g_descriptors;
  va_list arguments;
  va_start(arguments, request);
  const unsigned long argument = va_arg(arguments, unsigned long);
  va_end(arguments);
  const auto found = g_descriptors.find(fd);
  if (found == g_descriptors.end()) return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
  const auto [vm_fd, vcpu] = found->second;
  return vcpu == nullptr ? vmm::kvm::g_kvm->Answer(vm_fd, request, argument) : vmm::kvm::AnswerVcpu(*vcpu, request, argument);
}
