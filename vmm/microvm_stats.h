// What a microVM has counted since it was started.
//
// Shapes   plain values, taken from counters that go on: they need not be of one moment.
// Threads  a value.
#ifndef VMM_VMM_MICROVM_STATS_H_
#define VMM_VMM_MICROVM_STATS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmm {

struct MicroVmStats {
  // Of a trust level of a processor: accesses of its own that a level above does not allow.
  struct Intercepts {
    // Told to the level above, by what the access was.
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t executes = 0;
    uint64_t emulated = 0;  // accesses of instructions that KVM emulates
    uint64_t retried = 0;   // nothing refused the access by the time it was looked at, and it was made again
    uint64_t unknown = 0;   // of these: instructions that the access decoder does not know
    // Faults whose page KVM named (way B); of these, where the access decoder found another page first, or nothing that explains it.
    uint64_t named = 0;
    uint64_t other_first = 0;
    uint64_t unexplained = 0;
    // Told too: of MSRs and I/O ports.
    uint64_t msrs = 0;
    uint64_t ports = 0;
    [[nodiscard]] uint64_t told() const noexcept { return reads + writes + executes + msrs + ports; }
  };
  struct Processor {
    uint64_t pio_exits = 0;
    uint64_t mmio_exits = 0;
    uint64_t msr_exits = 0;
    uint64_t hypercall_exits = 0;
    uint64_t interrupted = 0;
    uint64_t other_exits = 0;
    uint64_t unclaimed = 0;
    // With the Hyper-V interface. Messages and events are those to this processor, at VTL0.
    uint64_t messages_written = 0;
    uint64_t messages_refused = 0;  // to their senders: a full queue, or a SynIC that is off
    uint64_t slots_busy = 0;        // looks that found the last message not taken yet
    uint64_t events = 0;            // flags that became set
    uint64_t message_kicks = 0;     // of this processor out of the guest, for a message
    // With Virtual Secure Mode.
    uint64_t vtl_calls = 0;
    uint64_t vtl_returns = 0;
    uint64_t vtl_preemptions = 0;        // of a lower level, by an interrupt of a higher one
    std::vector<Intercepts> intercepts;  // by level, VTL0 first; the highest has none
  };
  // Of memory, by all levels above VTL0.
  struct Protections {
    char way = '?';       // how they are enforced: docs/design.md, section 5
    bool rounds = false;  // what cannot be enforced is rounded, not refused
    uint64_t protected_pages = 0;  // now, as it is enforced
    uint64_t withdrawn_pages = 0;  // of these: taken out of devices' reach, beside what is reserved from them
    // Pages that VTL0 may not read, and to whose old place a device has written: something in VTL0 has told it to.
    uint64_t written_pages = 0;
    uint64_t set = 0;              // pages that calls have set, each time
    uint64_t rounded = 0;          // of these: more than was asked for is allowed, as less cannot be enforced; and such defaults
    // Calls that ended so.
    uint64_t not_enforceable = 0;
    uint64_t too_many_pieces = 0;
    uint64_t host_refused = 0;
    // Intercepts that were asked for, cannot be made here, and were accepted all the same (`unenforceable: ROUND`).
    uint64_t unenforced_intercepts = 0;
    [[nodiscard]] uint64_t refused() const noexcept { return not_enforceable + too_many_pieces + host_refused; }
  };
  // As the balloon's device last said (at most ten times a second); the guest's own words for its part.
  struct Balloon {
    uint64_t target_bytes = 0;
    uint64_t held_bytes = 0;       // by the balloon, says the driver
    uint64_t discarded_bytes = 0;  // given back to the host since the device's process started
    uint64_t refused_pages = 0;
    // Of the guest's statistics; none: it has not said.
    std::optional<uint64_t> guest_free_bytes, guest_total_bytes, guest_available_bytes;
  };
  struct Device {
    std::string name;
    uint64_t restarts = 0;
    uint64_t queue_faults = 0;  // queues stopped for what the guest put into them: descriptors of memory that the device lacks, say
  };
  std::vector<Processor> processors;
  std::vector<Device> devices;  // those on the virtio bus
  std::optional<Balloon> balloon;  // where there is one
  std::optional<Protections> protections;  // with Virtual Secure Mode
};

}  // namespace vmm

#endif  // VMM_VMM_MICROVM_STATS_H_
