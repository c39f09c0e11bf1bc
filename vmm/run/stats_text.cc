#include "vmm/run/stats_text.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

LogLevel LevelOf(bool happened) { return happened ? LogLevel::kInfo : LogLevel::kDebug; }

void AddProcessor(size_t index, const MicroVmStats::Processor& vp, std::vector<StatsLine>& lines) {
  const std::string who = absl::StrCat("virtual processor ", index, ": ");
  lines.push_back({LogLevel::kDebug, absl::StrCat(who, "exits for ports ", vp.pio_exits, ", memory ", vp.mmio_exits, ", MSRs ", vp.msr_exits,
                                                  ", hypercalls ", vp.hypercall_exits, ", signals ", vp.interrupted, ", others ",
                                                  vp.other_exits, "; nobody answered ", vp.unclaimed)});
  if (vp.messages_written + vp.messages_refused + vp.events != 0) {
    lines.push_back({LogLevel::kDebug, absl::StrCat(who, "messages ", vp.messages_written, ", refused ", vp.messages_refused, ", slot busy ",
                                                    vp.slots_busy, ", kicks for them ", vp.message_kicks, "; events ", vp.events)});
  }
  for (size_t vtl = 0; vtl < vp.intercepts.size(); ++vtl) {
    const MicroVmStats::Intercepts& of = vp.intercepts[vtl];
    lines.push_back({LevelOf(of.told() != 0),
                     absl::StrCat(who, "intercepts of VTL", vtl, ": reads ", of.reads, ", writes ", of.writes, ", executes ", of.executes,
                                  ", retried ", of.retried, "; VTL calls ", vp.vtl_calls, ", returns ", vp.vtl_returns, ", pre-emptions ",
                                  vp.vtl_preemptions, "; emulated ", of.emulated, ", unknown ", of.unknown,
                                  "; KVM named the page of ", of.named, ", another was found first ", of.other_first, ", unexplained ",
                                  of.unexplained, "; MSRs ", of.msrs, ", ports ", of.ports)});
  }
}

}  // namespace

std::vector<StatsLine> StatsLines(const MicroVmStats& stats) {
  std::vector<StatsLine> lines;
  for (size_t i = 0; i < stats.processors.size(); ++i) AddProcessor(i, stats.processors[i], lines);
  for (const MicroVmStats::Device& of : stats.devices) {
    lines.push_back({LevelOf(of.queue_faults != 0), absl::StrCat("device '", of.name, "': queues stopped for what was in them ", of.queue_faults,
                                                                 ", restarts ", of.restarts)});
  }
  if (stats.balloon.has_value()) {
    const MicroVmStats::Balloon& of = *stats.balloon;
    std::string text = absl::StrCat("balloon: target ", of.target_bytes >> 20, " MiB, held ", of.held_bytes >> 20, " MiB; given back ",
                                    of.discarded_bytes >> 20, " MiB, pages refused ", of.refused_pages);
    if (of.guest_free_bytes.has_value()) absl::StrAppend(&text, "; the guest had ", *of.guest_free_bytes >> 20, " MiB free");
    lines.push_back({LevelOf(of.refused_pages != 0), std::move(text)});
  }
  if (stats.protections.has_value()) {
    const MicroVmStats::Protections& of = *stats.protections;
    lines.push_back({LevelOf(of.set + of.rounded + of.refused() + of.unenforced_intercepts != 0),
                     absl::StrCat("page protections: ", of.protected_pages, " pages protected now, ", of.withdrawn_pages,
                                  " withdrawn from devices", of.written_pages == 0 ? "" : absl::StrCat(", which have written to ", of.written_pages),
                                  "; pages set ", of.set, ", rounded ", of.rounded,
                                  "; calls refused ", of.refused(), "; by way ", std::string(1, of.way), ", what it cannot enforce is ",
                                  of.rounds ? "rounded" : "refused",
                                  of.unenforced_intercepts == 0 ? "" : absl::StrCat("; intercepts accepted that do not happen ", of.unenforced_intercepts))});
  }
  return lines;
}

}  // namespace vmm
