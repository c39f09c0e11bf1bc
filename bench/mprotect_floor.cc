// What an access to a protected page costs on this host at the least: a bare KVM program without levels, messages or devices, whose
// guest stores to a page of which the host mapping allows reading alone. Each store is refused (KVM_RUN: EFAULT), the page is freed,
// the store is made, a port write tells, and the page is protected again. And the port write alone, which any exit costs.
// Prints "# result NAME median NANOSECONDS p99 NANOSECONDS"; bench/vtl.py reads it.

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

constexpr size_t kBytes = 0x10000;
constexpr uint32_t kCode = 0x1000, kPage = 0x8000;
constexpr int kSamples = 1000, kWarmUp = 50;

uint64_t Now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

absl::Status Protect(std::byte* page, int access) {
  if (::mprotect(page, 4096, access) != 0) return absl::InternalError("mprotect");
  return absl::OkStatus();
}

absl::Status Expect(kvm::Vcpu& vcpu, kvm::RunResult result) {
  if (vcpu.Run() != result) return absl::InternalError("the guest did something else");
  return absl::OkStatus();
}

absl::Status Measure(const char* name, kvm::Vcpu& vcpu, std::byte* page, bool refused) {
  std::vector<uint64_t> times;
  if (refused) RETURN_IF_ERROR(Protect(page, PROT_READ));
  for (int i = 0; i < kSamples + kWarmUp; ++i) {
    const uint64_t start = Now();
    if (refused) {
      RETURN_IF_ERROR(Expect(vcpu, kvm::RunResult::kMemoryFault));
      RETURN_IF_ERROR(Protect(page, PROT_READ | PROT_WRITE));
    }
    RETURN_IF_ERROR(Expect(vcpu, kvm::RunResult::kExit));
    if (refused) RETURN_IF_ERROR(Protect(page, PROT_READ));
    if (i >= kWarmUp) times.push_back(Now() - start);
  }
  std::ranges::sort(times);
  std::printf("# result %s median %llu p99 %llu\n", name, static_cast<unsigned long long>(times[kSamples / 2]),
              static_cast<unsigned long long>(times[kSamples * 99 / 100]));
  return absl::OkStatus();
}

absl::Status Run() {
  // mov [kPage], al; out 0x10, al; jmp back. Real mode.
  constexpr std::array<uint8_t, 7> kLoop = {0xa2, 0x00, 0x80, 0xe6, 0x10, 0xeb, 0xf9};
  void* const memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::InternalError("map guest memory");
  auto* const bytes = static_cast<std::byte*>(memory);
  std::memcpy(bytes + kCode, kLoop.data(), kLoop.size());
  ASSIGN_OR_RETURN(const auto system, kvm::System::Open());
  ASSIGN_OR_RETURN(const auto vm, system->CreateVm());
  RETURN_IF_ERROR(vm->SetMemorySlot(0, Gpa(0), bytes, kBytes));
  ASSIGN_OR_RETURN(const auto vcpu, vm->CreateVcpu(0));
  ASSIGN_OR_RETURN(kvm_sregs sregs, vcpu->GetSregs());
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  RETURN_IF_ERROR(vcpu->SetSregs(sregs));
  kvm_regs regs{};
  regs.rip = kCode;
  regs.rflags = 2;
  RETURN_IF_ERROR(vcpu->SetRegs(regs));
  RETURN_IF_ERROR(Measure("floor-port", *vcpu, bytes + kPage, /*refused=*/false));
  return Measure("floor-refused", *vcpu, bytes + kPage, /*refused=*/true);
}

}  // namespace
}  // namespace vmm

int main() {
  const absl::Status status = vmm::Run();
  if (!status.ok()) std::fprintf(stderr, "mprotect_floor: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
