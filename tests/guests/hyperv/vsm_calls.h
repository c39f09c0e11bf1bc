// The hypercalls of Virtual Secure Mode, for either level: each one a function whose answer is the whole result value.
//
// Shapes   blocks of hypercalls.h, which each level has its own of. `input_vtl` 0 is the level that calls; OfVtl(n) names one.
// Threads  any processor.
// Errors   none: Answer(status, reps) of hypercalls.h is what they are compared with.
// Source   Hyper-V TLFS, "Virtual Secure Mode".
#ifndef VMM_TESTS_GUESTS_HYPERV_VSM_CALLS_H_
#define VMM_TESTS_GUESTS_HYPERV_VSM_CALLS_H_

#include <cstdint>

#include "devices/hyperv/vsm/vsm_layout.h"
#include "tests/guests/hypercalls.h"

namespace guest {

// In units of 100 ns.
inline uint64_t ReferenceTime() { return ReadMsr(vmm::kHvMsrTimeRefCount); }

using vmm::HvInitialVpContext;
using vmm::HvRegisterName;
using vmm::HvRegisterValue;

inline constexpr uint32_t kSelf = 0xffff'fffe;
constexpr uint8_t OfVtl(uint8_t vtl) { return vmm::kHvInputVtlUseTarget | vtl; }

struct RegisterOf {
  uint32_t vp = kSelf;
  uint8_t input_vtl = 0;
  uint64_t partition = vmm::kHvPartitionIdSelf;
  uint8_t reserved = 0;
  [[nodiscard]] vmm::HvVpRegistersInput header() const {
    return {.partition_id = partition, .vp_index = vp, .target_vtl = input_vtl, .reserved = {reserved, 0, 0}};
  }
};

// `value` is set on success alone.
inline uint64_t GetRegister(HvRegisterName name, HvRegisterValue& value, const RegisterOf& of = {}) {
  Block().Put(of.header()).Put(name);
  const uint64_t answer = CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 1});
  if (answer == Success(1)) value = {Output()[0], Output()[1]};
  return answer;
}
inline uint64_t SetRegister(HvRegisterName name, HvRegisterValue value, const RegisterOf& of = {}) {
  Block().Put(of.header()).Put(vmm::HvSetVpRegistersElement{.name = name, .reserved = {}, .value = value});
  return CallMemory({.code = HypercallCode::kSetVpRegisters, .reps = 1});
}
// kNoValue where the answer is no success.
inline constexpr uint64_t kNoValue = 0xdead'dead'dead'dead;
inline uint64_t RegisterValue(HvRegisterName name, const RegisterOf& of = {}) {
  HvRegisterValue value{kNoValue, 0};
  (void)GetRegister(name, value, of);
  return value.low;
}

inline uint64_t EnablePartitionVtl(uint8_t vtl, uint8_t flags = 0, uint64_t partition = vmm::kHvPartitionIdSelf) {
  Block().Put(vmm::HvEnablePartitionVtlInput{.partition_id = partition, .target_vtl = vtl, .flags = flags, .reserved = {}});
  return CallMemory({.code = HypercallCode::kEnablePartitionVtl});
}

inline uint64_t EnableVpVtl(uint32_t vp, uint8_t vtl, const HvInitialVpContext& context,
                            uint64_t partition = vmm::kHvPartitionIdSelf) {
  Block().Put(vmm::HvStartVirtualProcessorInput{
      .partition_id = partition, .vp_index = vp, .target_vtl = vtl, .reserved = {}, .context = context});
  return CallMemory({.code = HypercallCode::kEnableVpVtl});
}

inline uint64_t StartVp(uint32_t vp, uint8_t vtl, const HvInitialVpContext& context) {
  Block().Put(vmm::HvStartVirtualProcessorInput{
      .partition_id = vmm::kHvPartitionIdSelf, .vp_index = vp, .target_vtl = vtl, .reserved = {}, .context = context});
  return CallMemory({.code = HypercallCode::kStartVirtualProcessor});
}

// The page of `gpa` and those behind it. At most 510.
inline uint64_t ModifyProtection(uint64_t gpa, uint32_t flags, uint16_t pages = 1, uint8_t input_vtl = 0) {
  Block block;
  block.Put(vmm::HvModifyVtlProtectionInput{
      .partition_id = vmm::kHvPartitionIdSelf, .flags = flags, .target_vtl = input_vtl, .reserved = {}});
  for (uint16_t page = 0; page < pages; ++page) block.Put(gpa / kPageBytes + page);
  return CallMemory({.code = HypercallCode::kModifyVtlProtectionMask, .reps = pages});
}

inline uint64_t Translate(uint64_t gva, uint64_t flags, uint8_t input_vtl, vmm::HvTranslateOutput& output, uint32_t vp = kSelf) {
  Block().Put(vmm::HvTranslateInput{.partition_id = vmm::kHvPartitionIdSelf,
                                    .vp_index = vp,
                                    .reserved = 0,
                                    .control_flags = flags | uint64_t{input_vtl} << vmm::kHvTranslateInputVtlShift,
                                    .gva_page = gva / kPageBytes});
  const uint64_t answer = CallMemory({.code = HypercallCode::kTranslateVirtualAddress});
  output = {Output()[0], Output()[1]};
  return answer;
}

inline uint64_t SendIpiByHypercall(uint32_t vector, uint64_t processors, uint8_t input_vtl = 0) {
  Block().Put(vmm::HvSendIpiInput{.vector = vector, .target_vtl = input_vtl, .reserved = {}, .processor_mask = processors});
  return CallMemory({.code = HypercallCode::kSendSyntheticClusterIpi});
}

inline uint64_t FlushAll(uint64_t flags = vmm::kHvFlushAllProcessors | vmm::kHvFlushAllAddressSpaces, uint64_t processors = 0) {
  Block().Put(vmm::HvFlushInput{.address_space = 0, .flags = flags, .processor_mask = processors});
  return CallMemory({.code = HypercallCode::kFlushVirtualAddressSpace});
}

inline uint64_t AssertInterrupt(uint8_t vtl, uint32_t type, uint32_t vector, uint64_t destination) {
  Block().Put(vmm::HvAssertVirtualInterruptInput{.partition_id = vmm::kHvPartitionIdSelf,
                                                 .control = type,
                                                 .destination = destination,
                                                 .vector = vector,
                                                 .target_vtl = vtl,
                                                 .reserved0 = 0,
                                                 .reserved1 = 0});
  return CallMemory({.code = HypercallCode::kAssertVirtualInterrupt});
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_HYPERV_VSM_CALLS_H_
