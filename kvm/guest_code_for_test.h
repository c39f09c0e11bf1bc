// A few instructions of 32-bit guest code, and the flat segments that they run in: for tests of bare vCPUs.
//
// Shapes   Bytes are put together by +; addresses and immediates are 32 bits.
#ifndef VMM_KVM_GUEST_CODE_FOR_TEST_H_
#define VMM_KVM_GUEST_CODE_FOR_TEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kvm/uapi.h"

namespace vmm::kvm {

using Bytes = std::vector<uint8_t>;
inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Bytes Word(uint32_t value) { return {uint8_t(value), uint8_t(value >> 8), uint8_t(value >> 16), uint8_t(value >> 24)}; }
inline Bytes MovEax(uint32_t value) { return Bytes{0xb8} + Word(value); }
inline Bytes MovEbx(uint32_t value) { return Bytes{0xbb} + Word(value); }
inline Bytes MovEcx(uint32_t value) { return Bytes{0xb9} + Word(value); }
inline Bytes MovEdx(uint32_t value) { return Bytes{0xba} + Word(value); }
inline Bytes LoadAl(uint32_t address) { return Bytes{0xa0} + Word(address); }
inline Bytes StoreAl(uint32_t address) { return Bytes{0xa2} + Word(address); }
inline Bytes LoadEax(uint32_t address) { return Bytes{0xa1} + Word(address); }
inline Bytes CompareEax(uint32_t address) { return Bytes{0x3b, 0x05} + Word(address); }
inline Bytes Increment(uint32_t address) { return Bytes{0xff, 0x05} + Word(address); }
inline Bytes StoreImmediate(uint32_t address, uint32_t value) { return Bytes{0xc7, 0x05} + Word(address) + Word(value); }
inline Bytes Wrmsr(uint32_t msr, uint32_t value) { return MovEcx(msr) + MovEax(value) + MovEdx(0) + Bytes{0x0f, 0x30}; }
inline Bytes Out(uint8_t port) { return {0xe6, port}; }
inline Bytes JumpBack(size_t bytes) { return Bytes{0xe9} + Word(static_cast<uint32_t>(-static_cast<int32_t>(bytes + 5))); }
inline const Bytes kForever = {0xeb, 0xfe}, kIret = {0xcf}, kSti = {0xfb};

inline const Bytes kApicOn = StoreImmediate(0xfee0'00f0, 0x1ff);  // spurious vector, software enable
// KVM's own Hyper-V hypercalls: the processor's instruction for them.
inline Bytes HypercallOpcode() { return __builtin_cpu_is("amd") ? Bytes{0x0f, 0x01, 0xd9} : Bytes{0x0f, 0x01, 0xc1}; }

// In place of KVM's own leaves: with these KVM takes the vCPU for one that may use its Hyper-V interface.
inline void ShowHyperv(std::vector<kvm_cpuid_entry2>& cpuid) {
  std::erase_if(cpuid, [](const kvm_cpuid_entry2& entry) { return entry.function >> 16 == 0x4000; });
  kvm_cpuid_entry2 leaf{};
  leaf.function = 0x4000'0000;
  leaf.eax = 0x4000'0001;
  cpuid.push_back(leaf);
  leaf.function = 0x4000'0001;
  leaf.eax = 0x3123'7648;  // "Hv#1"
  cpuid.push_back(leaf);
}

// Null, null, code, data: all of 4 GiB, ring 0.
inline std::array<uint64_t, 4> FlatGdt() { return {0, 0, 0x00cf'9b00'0000'ffff, 0x00cf'9300'0000'ffff}; }
// Protected mode with these segments, whose table is at `gdt`.
inline void MakeFlat(kvm_sregs& sregs, uint32_t gdt) {
  for (kvm_segment* segment : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.ss}) {
    segment->base = 0;
    segment->limit = 0xffff'ffff;
    segment->selector = segment == &sregs.cs ? 0x10 : 0x18;
    segment->db = 1;
    segment->g = 1;
  }
  sregs.cr0 |= 1;
  sregs.gdt = {.base = gdt, .limit = sizeof(uint64_t) * 4 - 1};
}

}  // namespace vmm::kvm

#endif  // VMM_KVM_GUEST_CODE_FOR_TEST_H_
