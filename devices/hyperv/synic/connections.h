// The connections of a partition: what a guest names in PostMessage and SignalEvent, and the port that this reaches.
//
// Shapes   connection id -> port: a synthetic interrupt source of a VP at a VTL, for messages or for event flags. At most 4096.
// Units    event flags: numbers, relative to the port's first.
// Threads  guarded: any. Post and Signal share the lock; Add and Remove are short, and never made while one thread waits for
//          another.
// Trust    connection, type, size and flag are the guest's and checked here. Ports come from the machine's own devices.
// Errors   Add, Remove: Status. Post, Signal: the hypercall's HvStatus; no allocation.
// Source   Hyper-V TLFS, "Inter-Partition Communication": "Ports", "Connections", "HvCallPostMessage", "HvCallSignalEvent".
#ifndef VMM_DEVICES_HYPERV_SYNIC_CONNECTIONS_H_
#define VMM_DEVICES_HYPERV_SYNIC_CONNECTIONS_H_

#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/synic.h"

namespace vmm {

// Where the SynIC of a VP is found. Each lives as long as the partition; one may come into being while the guest runs.
//
// Threads  any.
class SynicDirectory {
 public:
  virtual ~SynicDirectory() = default;
  // Null: there is no such VP, or it does not have this VTL (yet). Both numbers may be anything.
  [[nodiscard]] virtual Synic* Find(VpIndex vp, Vtl vtl) noexcept = 0;
  [[nodiscard]] virtual uint32_t vp_count() const noexcept = 0;
};

enum class PortType : uint8_t { kMessage, kEvent };

struct Port {
  uint32_t id;            // what the receiver of a message sees as its origination
  PortType type;
  VpIndex vp;             // kHvAnyVp: the first whose SynIC takes it
  Vtl vtl;
  Sint sint;
  uint32_t base_flag = 0;  // events only: flags base_flag to base_flag + flag_count - 1
  uint32_t flag_count = 0;
};

class ConnectionTable final {
 public:
  static constexpr size_t kMaxConnections = 4096;

  // Outlives this.
  explicit ConnectionTable(SynicDirectory& synics);
  ConnectionTable(const ConnectionTable&) = delete;
  ConnectionTable& operator=(const ConnectionTable&) = delete;

  // kAlreadyExists: this id has a port. kInvalidArgument: flags beyond the event page. kResourceExhausted: the table is full.
  absl::Status Add(uint32_t connection, const Port& port);
  // From its return on nothing more is sent by it. kNotFound: there is none.
  absl::Status Remove(uint32_t connection);
  [[nodiscard]] size_t size() const;

  // On the thread of `poster`. `payload` is a copy that the guest cannot change any more.
  [[nodiscard]] HvStatus PostMessage(Poster poster, uint32_t connection, uint32_t message_type,
                                     std::span<const uint8_t> payload) noexcept;
  [[nodiscard]] HvStatus SignalEvent(uint32_t connection, uint32_t flag) noexcept;

 private:
  struct Entry {
    uint32_t connection;
    Port port;
  };
  [[nodiscard]] const Port* FindLocked(uint32_t connection) const noexcept;
  [[nodiscard]] Synic* Target(const Port& port) const noexcept;

  SynicDirectory& synics_;
  mutable std::shared_mutex mutex_;
  std::vector<Entry> entries_;  // guarded by mutex_, which clang's analysis does not know; sorted by connection
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_CONNECTIONS_H_
