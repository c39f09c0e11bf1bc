// One hypercall on its way through its handler: copies of its parameters, and where its output goes.
//
// Shapes   header, variable header and list are cut from one copy of the guest's input block; output is ours until the handler is
//          done.
// Units    spans in bytes, reps in elements.
// Threads  confined: lives within one Dispatch.
// Trust    the bytes are the guest's, but they no longer change. Sizes are those of the call's row in the table, so that a type
//          always fits; the table's test holds the two together.
// Errors   HvStatus.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_CALL_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_CALL_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hypercall_services.h"
#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm {

// Who calls, and what it may.
struct HypercallCaller {
  VpIndex vp;
  Vtl vtl;
  const HvOffer offer;
  HypercallServices& services;

  // Null: there is one level, and the calls about others are unknown codes.
  [[nodiscard]] VsmServices* vsm() const noexcept { return offer.Has(HvPrivilege::kVsm) ? services.vsm() : nullptr; }
};

class HypercallCall final {
 public:
  struct Parts {
    std::span<const std::byte> header;
    std::span<const std::byte> variable;
    std::span<const std::byte> list;
    std::span<std::byte> output;  // zeroes to begin with
  };
  // Elements [rep, rep_end) are to be done now; both 0 for a simple call.
  HypercallCall(const HypercallCaller& caller, const Parts& parts, uint16_t rep, uint16_t rep_end) noexcept
      : caller_(caller), parts_(parts), rep_(rep), rep_end_(rep_end) {}

  [[nodiscard]] const HypercallCaller& caller() const noexcept { return caller_; }
  [[nodiscard]] HypercallServices& services() const noexcept { return caller_.services; }
  // For calls that need HvPrivilege::kVsm: the dispatcher has seen that it is there.
  [[nodiscard]] VsmServices& vsm() const noexcept { return *caller_.vsm(); }
  // Of the caller's own level.
  [[nodiscard]] PartitionHost& host() const noexcept { return caller_.services.host(caller_.vtl); }

  template <typename T>
  [[nodiscard]] T Header() const noexcept {
    return Load<T>(parts_.header, 0);
  }
  // Entries of the variable header.
  [[nodiscard]] size_t variable_count() const noexcept { return parts_.variable.size() / sizeof(uint64_t); }
  [[nodiscard]] uint64_t Variable(size_t index) const noexcept {
    return Load<uint64_t>(parts_.variable, index * sizeof(uint64_t));
  }
  template <typename T>
  void PutOutput(const T& value) noexcept {
    Store(value, 0);
  }

  // A rep handler goes: for (; call.HasRep(); call.CompleteRep()) { use Element and PutElement; return a status on failure }
  [[nodiscard]] bool HasRep() const noexcept { return rep_ < rep_end_; }
  [[nodiscard]] uint16_t rep() const noexcept { return rep_; }
  void CompleteRep() noexcept { ++rep_; }
  [[nodiscard]] size_t reps_left() const noexcept { return static_cast<size_t>(rep_end_ - rep_); }
  template <typename T>
  [[nodiscard]] T Element(size_t further = 0) const noexcept {
    return Load<T>(parts_.list, (rep_ + further) * sizeof(T));
  }
  template <typename T>
  void PutElement(const T& value) noexcept {
    Store(value, rep_ * sizeof(T));
  }

  // The call cannot be done now: the guest makes it again, from where it began. Whatever else the handler says or did is dropped.
  void Block() noexcept { blocked_ = true; }
  [[nodiscard]] bool is_blocked() const noexcept { return blocked_; }

 private:
  // A row whose sizes do not fit its handler's types is our bug, not the guest's: it reads zeroes, and the table's test fails.
  template <typename T>
  [[nodiscard]] static T Load(std::span<const std::byte> from, size_t offset) noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (offset <= from.size() && sizeof(T) <= from.size() - offset) std::memcpy(&value, from.data() + offset, sizeof(T));
    return value;
  }
  template <typename T>
  void Store(const T& value, size_t offset) noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::span<std::byte> to = parts_.output;
    if (offset <= to.size() && sizeof(T) <= to.size() - offset) std::memcpy(to.data() + offset, &value, sizeof(T));
  }

  const HypercallCaller& caller_;
  const Parts parts_;
  uint16_t rep_;
  const uint16_t rep_end_;
  bool blocked_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_CALL_H_
