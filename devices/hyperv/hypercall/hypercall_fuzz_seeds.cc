// Writes fuzz_corpus/: a well-formed call of every code in each form that it has. To be run after a call was added:
//   tools/bazelw run //devices/hyperv/hypercall:hypercall_fuzz_seeds -- "$PWD/devices/hyperv/hypercall/fuzz_corpus"
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hypercall/hypercall_fuzz_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_table.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

struct Parameters {
  std::vector<uint8_t> bytes;
  uint16_t variable = 0;
  uint16_t reps = 0;

  template <typename T>
  Parameters& Add(const T& value) {
    const size_t at = bytes.size();
    bytes.resize(at + sizeof(T));
    std::memcpy(bytes.data() + at, &value, sizeof(T));
    return *this;
  }
};

constexpr HvVpSetHeader kOneBank{.format = kHvVpSetSparse4k, .valid_banks = 1};

Parameters ParametersOf(HypercallCode code) {
  Parameters p;
  switch (code) {
    case HypercallCode::kFlushVirtualAddressSpace:
      return p.Add(HvFlushInput{.processor_mask = 3});
    case HypercallCode::kFlushVirtualAddressList:
      p.reps = 2;
      return p.Add(HvFlushInput{.flags = kHvFlushExtendedRanges, .processor_mask = 3})
          .Add(HvGvaRange{0x1001})
          .Add(HvGvaRange{0x20'1800});
    case HypercallCode::kFlushVirtualAddressSpaceEx:
      p.variable = 1;
      return p.Add(HvFlushExInput{.processors = kOneBank}).Add(uint64_t{3});
    case HypercallCode::kFlushVirtualAddressListEx:
      p.variable = 1;
      p.reps = 1;
      return p.Add(HvFlushExInput{.processors = kOneBank}).Add(uint64_t{3}).Add(HvGvaRange{0x1001});
    case HypercallCode::kNotifyLongSpinWait:
      return p.Add(HvNotifyLongSpinWaitInput{.spin_count = 7});
    case HypercallCode::kSendSyntheticClusterIpi:
      return p.Add(HvSendIpiInput{.vector = 0x40, .target_vtl = kHvInputVtlUseTarget, .processor_mask = 3});
    case HypercallCode::kSendSyntheticClusterIpiEx:
      p.variable = 1;
      return p.Add(HvSendIpiExInput{.vector = 0x40, .processors = kOneBank}).Add(uint64_t{3});
    case HypercallCode::kPostMessage:
      return p.Add(HvPostMessageInput{.connection_id = 1, .message_type = 1, .payload_size = 16, .payload = {1, 2, 3}});
    case HypercallCode::kSignalEvent:
      return p.Add(HvSignalEventInput{.connection_id = 2, .flag_number = 1});
    case HypercallCode::kGetVpRegisters:
      p.reps = 3;
      return p.Add(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = 0xffff'fffe})
          .Add(HvRegisterName::kRip)
          .Add(HvRegisterName::kCs)
          .Add(HvRegisterName::kVsmCapabilities);
    case HypercallCode::kSetVpRegisters:
      p.reps = 1;
      return p.Add(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = 1})
          .Add(HvSetVpRegistersElement{.name = HvRegisterName::kRsp, .value = {0x1000, 0}});
    case HypercallCode::kStartVirtualProcessor:
      return p.Add(HvStartVirtualProcessorInput{.partition_id = kHvPartitionIdSelf, .vp_index = 1, .context = LongModeContext()});
    case HypercallCode::kGetVpIndexFromApicId:
      p.reps = 2;
      return p.Add(HvVpIndexFromApicIdInput{.partition_id = kHvPartitionIdSelf}).Add(uint32_t{1}).Add(uint32_t{0});
    case HypercallCode::kModifyVtlProtectionMask:
      p.reps = 2;
      return p.Add(HvModifyVtlProtectionInput{.partition_id = kHvPartitionIdSelf, .flags = 1})
          .Add(uint64_t{0x10})
          .Add(uint64_t{0x11});
    case HypercallCode::kEnablePartitionVtl:
      return p.Add(HvEnablePartitionVtlInput{.partition_id = kHvPartitionIdSelf, .target_vtl = 1, .flags = 1});
    case HypercallCode::kEnableVpVtl:
      return p.Add(HvStartVirtualProcessorInput{
          .partition_id = kHvPartitionIdSelf, .vp_index = 0xffff'fffe, .target_vtl = 1, .context = LongModeContext()});
    case HypercallCode::kInstallIntercept:
      return p.Add(HvInstallInterceptInput{.partition_id = kHvPartitionIdSelf, .access = 3, .parameter = 0x3f8});
    case HypercallCode::kTranslateVirtualAddress:
    case HypercallCode::kTranslateVirtualAddressEx:
      return p.Add(HvTranslateInput{.partition_id = kHvPartitionIdSelf,
                                    .vp_index = 0xffff'fffe,
                                    .control_flags = kHvTranslateValidateRead | uint64_t{kHvInputVtlUseTarget}
                                                                                    << kHvTranslateInputVtlShift,
                                    .gva_page = 0x1000});
    case HypercallCode::kAssertVirtualInterrupt:
      return p.Add(HvAssertVirtualInterruptInput{.partition_id = kHvPartitionIdSelf, .vector = 0x40});
    case HypercallCode::kGetPartitionId:
    case HypercallCode::kExtQueryCapabilities:
    case HypercallCode::kVtlCall:
    case HypercallCode::kVtlReturn:
      return p;
  }
  return p;
}

bool WriteSeed(const std::string& path, const HypercallFuzzInput& input, const std::vector<uint8_t>& memory) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(&input), sizeof(input));
  file.write(reinterpret_cast<const char*>(memory.data()), static_cast<std::streamsize>(memory.size()));
  return file.good();
}

bool WriteSeeds(const std::string& folder, const HypercallRow& row) {
  const Parameters p = ParametersOf(row.code);
  const uint64_t control = static_cast<uint64_t>(row.code) | uint64_t{p.variable} << HypercallInput::kVariableHeaderShift |
                           uint64_t{p.reps} << HypercallInput::kRepCountShift;
  HypercallFuzzInput input{.rcx = control, .rdx = kHypercallFuzzMemory.raw(), .r8 = kHypercallFuzzMemory.raw() + kPageBytes,
                           .privileges = ~uint64_t{0}, .features = ~uint32_t{0}, .vp_count = 3};
  // As who may do the most.
  const uint8_t level = row.privilege == HvPrivilege::kVsm ? kHypercallFuzzVtl1 : uint8_t{0};
  input.modes = level;
  if (!WriteSeed(folder + "/" + row.name + "_memory", input, p.bytes)) return false;

  input.modes = kHypercallFuzzNot64 | level;
  input.rax = control & 0xffff'ffff;
  input.rdx = control >> 32;
  input.rcx = kHypercallFuzzMemory.raw();
  input.rsi = kHypercallFuzzMemory.raw() + kPageBytes;
  if (!WriteSeed(folder + "/" + row.name + "_memory32", input, p.bytes)) return false;

  if (p.bytes.size() > kHypercallFastBytes) return true;
  std::vector<uint8_t> slots = p.bytes;
  slots.resize(kHypercallFastBytes);
  input.modes = level;
  input.rcx = control | HypercallInput::kFast;
  std::memcpy(&input.rdx, slots.data(), sizeof(input.rdx));
  std::memcpy(&input.r8, slots.data() + 8, sizeof(input.r8));
  std::memcpy(&input.xmm, slots.data() + kHypercallSlotBytes, sizeof(input.xmm));
  return WriteSeed(folder + "/" + row.name + "_fast", input, {});
}

int Main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "hypercall_fuzz_seeds FOLDER\n");
    return 2;
  }
  for (const HypercallRow& row : AllHypercalls()) {
    if (!WriteSeeds(argv[1], row)) {
      std::fprintf(stderr, "write seeds of %s in %s\n", row.name, argv[1]);
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) { return vmm::Main(argc, argv); }
