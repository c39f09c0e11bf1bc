#include "devices/virtio/net/net_arguments.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_layout.h"

namespace vmm {
namespace {

namespace vn = virtio_net;

constexpr absl::string_view kOwn[] = {"--mac", "--mtu", "--queues", "--bytes-per-second", "--packets-per-second"};
constexpr absl::string_view kOutside[] = {"--tap", "--tap-fd", "--stream-fd", "--passt", "--tcp-ports", "--udp-ports"};

bool Has(std::span<const absl::string_view> names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool TakeFd(absl::string_view value, int& fd) { return absl::SimpleAtoi(value, &fd) && fd >= 0; }

bool Set(NetArguments& to, absl::string_view name, absl::string_view value) {
  uint32_t number = 0;
  if (name == "--mac") {
    const std::optional<MacAddress> mac = ParseMacAddress(value);
    to.has_mac = mac.has_value();
    if (mac.has_value()) to.options.mac = *mac;
    return mac.has_value();
  }
  if (name == "--mtu") {
    if (!absl::SimpleAtoi(value, &number) || number < vn::kMinMtu || number > 65535) return false;
    to.options.mtu = static_cast<uint16_t>(number);
    return true;
  }
  if (name == "--queues") {
    if (!absl::SimpleAtoi(value, &number) || number < 1 || number > NetDevice::kMaxPairs) return false;
    to.options.pairs = static_cast<uint16_t>(number);
    return true;
  }
  if (name == "--bytes-per-second") return absl::SimpleAtoi(value, &to.options.bytes_per_second);
  if (name == "--packets-per-second") return absl::SimpleAtoi(value, &to.options.packets_per_second);
  if (name == "--stream-fd") return to.stream_fd < 0 && TakeFd(value, to.stream_fd);
  if (name == "--tap-fd") {
    to.tap_fds.push_back(-1);
    return to.tap_fds.size() <= NetDevice::kMaxPairs && TakeFd(value, to.tap_fds.back());
  }
  if (name == "--tcp-ports" || name == "--udp-ports") {
    (name == "--tcp-ports" ? to.passt.tcp_ports : to.passt.udp_ports) = std::string(value);
    return IsPasstPorts(value);
  }
  (name == "--tap" ? to.tap : to.passt_program) = std::string(value);
  return !value.empty();
}

}  // namespace

absl::StatusOr<NetArguments> TakeNetArguments(std::vector<absl::string_view>& arguments, bool jailed) {
  NetArguments result;
  std::vector<absl::string_view> others;
  bool queues_given = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const absl::string_view argument = arguments[i];
    if (jailed ? argument == "--stream" : argument == "--user") {
      (jailed ? result.stream : result.user) = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    if (!Has(kOwn, name) && (jailed || !Has(kOutside, name))) {
      others.push_back(argument);
      continue;
    }
    absl::string_view value;
    if (equals != absl::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("argument '", argument, "' needs a value"));
    }
    if (!Set(result, name, value)) return absl::InvalidArgumentError(absl::StrCat("argument '", name, "': '", value, "' is not what it takes"));
    queues_given |= name == "--queues";
  }
  arguments = std::move(others);
  if (jailed) return result;
  const int wires = (result.tap.empty() ? 0 : 1) + (result.tap_fds.empty() ? 0 : 1) + (result.stream_fd < 0 ? 0 : 1) + (result.user ? 1 : 0);
  if (wires != 1) return absl::InvalidArgumentError("needs one of --tap NAME, --tap-fd N, --user and --stream-fd N: where packets go");
  if (!result.tap_fds.empty()) {
    if (queues_given && result.options.pairs != result.tap_fds.size()) return absl::InvalidArgumentError("--queues: needs as many --tap-fd");
    result.options.pairs = static_cast<uint16_t>(result.tap_fds.size());
  }
  if ((result.user || result.stream_fd >= 0) && result.options.pairs != 1) return absl::InvalidArgumentError("--queues: a stream has one");
  if (!result.user && !(result.passt.tcp_ports.empty() && result.passt.udp_ports.empty())) {
    return absl::InvalidArgumentError("--tcp-ports, --udp-ports: need --user");
  }
  result.passt.mtu = result.options.mtu;
  return result;
}

std::vector<std::string> NetDeviceArguments(const NetOptions& options, bool stream) {
  std::vector<std::string> arguments = {absl::StrCat("--mac=", MacAddressText(options.mac)), absl::StrCat("--queues=", options.pairs)};
  if (options.mtu != 0) arguments.push_back(absl::StrCat("--mtu=", options.mtu));
  if (options.bytes_per_second != 0) arguments.push_back(absl::StrCat("--bytes-per-second=", options.bytes_per_second));
  if (options.packets_per_second != 0) arguments.push_back(absl::StrCat("--packets-per-second=", options.packets_per_second));
  if (stream) arguments.push_back("--stream");
  return arguments;
}

}  // namespace vmm
