// A partition for hypercalls without a machine: it records what was asked of it, and refuses what the test says. For tests of the
// dispatcher, the handlers, and of who calls them.
//
// Threads  confined.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_FAKE_HYPERCALL_SERVICES_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_FAKE_HYPERCALL_SERVICES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_services.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

class FakePartitionHost final : public PartitionHost {
 public:
  struct Interrupt {
    VpIndex vp;
    uint8_t vector;
    bool operator==(const Interrupt&) const = default;
  };

  FakePartitionHost() { interrupts.reserve(kReserved); }
  [[nodiscard]] uint32_t vp_count() const noexcept override { return count; }
  void SendInterrupt(VpIndex vp, uint8_t vector) noexcept override { interrupts.push_back({vp, vector}); }
  void FlushTlb() noexcept override { ++flushes; }
  [[nodiscard]] bool RunOn(VpIndex, absl::FunctionRef<void()> work) noexcept override {
    work();
    return true;
  }

  uint32_t count = 4;
  std::vector<Interrupt> interrupts;
  int flushes = 0;

 private:
  static constexpr size_t kReserved = 8192;
};

// Virtual Secure Mode that lets everything happen, or nothing.
class FakeVsmServices final : public VsmServices {
 public:
  struct Enabled {
    VpIndex vp;  // EnableVpVtl's; 0 for the partition's
    uint8_t guest_vtl;
    uint8_t guest_flags;
    uint64_t rip;
    bool operator==(const Enabled&) const = default;
  };
  struct Protected {
    Vtl owner;
    uint32_t flags;
    uint64_t page;
    bool operator==(const Protected&) const = default;
  };
  struct Translated {
    VpIndex vp;
    Vtl vtl;
    uint64_t flags;
    uint64_t page;
    bool operator==(const Translated&) const = default;
  };
  struct Asserted {
    Vtl vtl;
    Interrupt interrupt;
    bool operator==(const Asserted&) const = default;
  };
  struct Port {
    uint16_t port;
    bool reads;
    bool writes;
    bool operator==(const Port&) const = default;
  };
  // Protect fails at it, having done those before.
  static constexpr uint64_t kBadPage = 0xbad;

  FakeVsmServices() {
    enabled.reserve(kReserved);
    pages.reserve(kReserved);
    translated.reserve(kReserved);
    asserted.reserve(kReserved);
    ports.reserve(kReserved);
  }

  [[nodiscard]] bool VtlCall(VtlSwitchRequest request) noexcept override {
    called = request;
    return may_switch;
  }
  [[nodiscard]] bool VtlReturn(VtlSwitchRequest request) noexcept override {
    returned = request;
    return may_switch;
  }
  [[nodiscard]] bool IsVtlEnabled(Vtl vtl) noexcept override { return ((levels >> vtl.raw()) & 1) != 0; }
  [[nodiscard]] bool MustWaitForTlbLock() noexcept override { return tlb_locked; }
  [[nodiscard]] HvStatus EnablePartitionVtl(uint8_t guest_vtl, uint8_t guest_flags) noexcept override {
    enabled.push_back({VpIndex(0), guest_vtl, guest_flags, 0});
    return answer;
  }
  [[nodiscard]] HvStatus EnableVpVtl(VpIndex vp, uint8_t guest_vtl, const HvInitialVpContext& context) noexcept override {
    enabled.push_back({vp, guest_vtl, 0, context.rip});
    return answer;
  }
  [[nodiscard]] HvStatus CheckStart(VpIndex, Vtl) noexcept override { return answer; }
  [[nodiscard]] HvStatus CheckProtection(Vtl owner, uint32_t) noexcept override {
    return owner == kVtl0 ? HvStatus::kInvalidParameter : answer;
  }
  [[nodiscard]] PageProtection Protect(Vtl owner, uint32_t flags, std::span<const uint64_t> guest_pages) noexcept override {
    ++protections;
    uint16_t done = 0;
    for (const uint64_t page : guest_pages) {
      if (page == kBadPage) return {HvStatus::kInvalidParameter, done};
      pages.push_back({owner, flags, page});
      ++done;
    }
    return {HvStatus::kSuccess, done};
  }
  [[nodiscard]] GvaTranslation Translate(VpIndex vp, Vtl vtl, uint64_t flags, uint64_t page) noexcept override {
    translated.push_back({vp, vtl, flags, page});
    return translation;
  }
  [[nodiscard]] HvStatus AssertInterrupt(Vtl vtl, const Interrupt& interrupt) noexcept override {
    asserted.push_back({vtl, interrupt});
    return answer;
  }
  [[nodiscard]] HvStatus InterceptIoPort(uint16_t port, bool reads, bool writes) noexcept override {
    ports.push_back({port, reads, writes});
    return answer;
  }

  void Forget() {
    enabled.clear();
    pages.clear();
    translated.clear();
    asserted.clear();
    ports.clear();
  }

  bool may_switch = true;
  bool tlb_locked = false;
  uint16_t levels = 0b11;
  HvStatus answer = HvStatus::kSuccess;
  GvaTranslation translation{.status = HvStatus::kSuccess, .cache_type = 6, .gpa_page = 0x77};
  VtlSwitchRequest called{};
  VtlSwitchRequest returned{};
  int protections = 0;
  std::vector<Enabled> enabled;
  std::vector<Protected> pages;
  std::vector<Translated> translated;
  std::vector<Asserted> asserted;
  std::vector<Port> ports;

 private:
  static constexpr size_t kReserved = 1024;
};

class FakeHypercallServices final : public HypercallServices {
 public:
  struct Posted {
    VpIndex poster;
    uint32_t connection;
    HvMessage message;
  };
  struct Signalled {
    uint32_t connection;
    uint16_t flag;
    bool operator==(const Signalled&) const = default;
  };
  struct RegisterAccess {
    VpIndex vp;
    Vtl vtl;
    HvRegisterName name;
    HvRegisterValue value;
    bool operator==(const RegisterAccess&) const = default;
  };
  struct Started {
    VpIndex vp;
    Vtl vtl;
    HvInitialVpContext context;
  };
  static constexpr uint64_t kPartitionId = 0x1234;
  // The fake knows every register but this.
  static constexpr HvRegisterName kUnknownName{0xdead'0000};

  FakeHypercallServices() {
    posted.reserve(kReserved);
    signalled.reserve(kReserved);
    got.reserve(kReserved);
    set.reserve(kReserved);
    started.reserve(kReserved);
  }

  [[nodiscard]] PartitionHost& host(Vtl) noexcept override { return partition; }
  [[nodiscard]] uint64_t partition_id() const noexcept override { return kPartitionId; }
  [[nodiscard]] HvStatus PostMessage(VpIndex poster, uint32_t connection, const HvMessage& message) noexcept override {
    posted.push_back({poster, connection, message});
    return answer;
  }
  [[nodiscard]] HvStatus SignalEvent(uint32_t connection, uint16_t flag) noexcept override {
    signalled.push_back({connection, flag});
    return answer;
  }
  [[nodiscard]] HvStatus GetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, HvRegisterValue& value) noexcept override {
    if (name == kUnknownName) {
      value = {~uint64_t{0}, ~uint64_t{0}};  // must not be seen
      return HvStatus::kInvalidParameter;
    }
    value = ValueOf(name);
    got.push_back({vp, vtl, name, value});
    if (on_register) on_register();
    return answer;
  }
  [[nodiscard]] HvStatus SetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept override {
    if (name == kUnknownName) return HvStatus::kInvalidParameter;
    set.push_back({vp, vtl, name, value});
    return answer;
  }
  [[nodiscard]] HvStatus StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept override {
    started.push_back({vp, vtl, context});
    return answer;
  }

  [[nodiscard]] VsmServices* vsm() noexcept override { return has_vsm ? &levels : nullptr; }

  static constexpr HvRegisterValue ValueOf(HvRegisterName name) noexcept {
    return {0x1111'0000'0000'0000u | static_cast<uint64_t>(name), 0x2222'0000'0000'0000u | static_cast<uint64_t>(name)};
  }

  void Forget() {
    posted.clear();
    signalled.clear();
    got.clear();
    set.clear();
    started.clear();
    partition.interrupts.clear();
    partition.flushes = 0;
    levels.Forget();
  }

  FakePartitionHost partition;
  FakeVsmServices levels;
  bool has_vsm = false;
  HvStatus answer = HvStatus::kSuccess;  // what all but host() and partition_id() say
  std::function<void()> on_register;     // a guest's step in the middle of GetVpRegisters
  std::vector<Posted> posted;
  std::vector<Signalled> signalled;
  std::vector<RegisterAccess> got;
  std::vector<RegisterAccess> set;
  std::vector<Started> started;

 private:
  static constexpr size_t kReserved = 256;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_FAKE_HYPERCALL_SERVICES_H_
