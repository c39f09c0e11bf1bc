#!/bin/bash
# ACPICA is the interpreter inside Linux: its disassembler must find nothing to say about the tables, its compiler must take
# the disassembly back, and its interpreter must run them. Called with the dumper.
set -euo pipefail
export LC_ALL=C
dumper=$(readlink -f "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# expect FILE TEXT: with runs of blanks taken as one.
expect() { tr -s ' \n' ' ' <"$1" | grep -F -- "$2" >/dev/null || { cat "$1" >&2; fail "$1 does not say: $2"; }; }
refuse() { ! tr -s ' \n' ' ' <"$1" | grep -F -- "$2" >/dev/null || fail "$1 says: $2"; }

# quiet COMMAND...: its output may have no complaint. (iasl ends with 0 whatever the disassembler thinks.)
quiet() {
  "$@" >log 2>&1 || { cat log >&2; fail "$*"; }
  if grep -v '0 Errors, 0 Warnings' log | grep -iE 'error|warning|invalid|incorrect|unknown|mismatch|unresolved|exception|AE_' >&2; then
    cat log >&2
    fail "complaints from: $*"
  fi
}

for set in "1 all" "1 none" "2 all" "2 none" "64 all" "300 all"; do
  read -r processors which <<<"$set"
  folder=$processors-$which
  mkdir "$folder"
  "$dumper" "$folder" "$processors" "$which" || fail "dump $set"
  pushd "$folder" >/dev/null
  aml=(DSDT.dat VMM*.dat)
  for table in *.dat; do
    case $table in
      DSDT.dat | VMM*.dat)
        others=()
        for other in "${aml[@]}"; do [[ $other == "$table" ]] || others+=(-e "$other"); done
        quiet iasl "${others[@]}" -d "$table"
        ;;
      *) quiet iasl -d "$table" ;;
    esac
    [[ $table == XSDT.dat ]] || quiet iasl -we -p "again-${table%.dat}" "${table%.dat}.dsl"
  done
  # What is generated here is byte for byte what the compiler makes of it, but for the header.
  cmp <(tail -c +37 VMMCONF.dat) <(tail -c +37 again-VMMCONF.aml) || fail "$set: the generated SSDT is not the compiler's"

  if [[ $which == all ]]; then
    expected="APIC DSDT FACP MCFG VMMCOM1 VMMCONF VMMPANIC VMMPCIE VMMRTC XSDT"
  else
    expected="APIC DSDT FACP VMMCONF XSDT"
  fi
  found=$(printf '%s\n' *.dat | sed 's/\.dat$//' | sort | xargs)
  [[ $found == "$expected" ]] || fail "$set: tables $found, expected $expected"

  expect FACP.dsl "Hardware Reduced (V5) : 1"
  expect FACP.dsl "Reset Register Supported (V2) : 1"
  expect FACP.dsl "VGA Not Present (V4) : 1"
  [[ $which == all ]] && rtc=0 || rtc=1
  expect FACP.dsl "CMOS RTC Not Present (V5) : $rtc"
  expect FACP.dsl "8042 Present on ports 60/64 (V2) : 0"
  expect FACP.dsl "Table Length : 00000114"
  expect DSDT.dsl 'Name (_S5, Package (0x04)'

  [[ $(grep -c 'Processor Enabled : 1' APIC.dsl) == "$processors" ]] || fail "$set: enabled processors in the MADT"
  expect APIC.dsl "PC-AT Compatibility : 0"
  [[ $(grep -c '"ACPI0007"' VMMCONF.dsl) == "$processors" ]] || fail "$set: processor devices"

  # The interpreter. It makes up its own FADT, which names one DSDT; the order is that of the XSDT.
  names=(DSDT.dat)
  for table in VMMCOM1 VMMPANIC VMMRTC VMMPCIE VMMCONF; do [[ ! -e $table.dat ]] || names+=("$table.dat"); done
  commands=(namespace 'evaluate \_S5')
  if [[ $which == all ]]; then
    commands+=('resources \_SB.PCI0' 'resources \_SB.COM1' 'resources \_SB.RTC' 'resources \_SB.ECAM' 'evaluate \_SB.PCI0._PRT')
  fi
  # One at a time: its batch mode stops after the first. "resources" tries _SRS at its end, which no device here has.
  for command in "${commands[@]}"; do
    acpiexec -b "$command" "${names[@]}" 2>&1 | tr -d '\000' >>run || { cat run >&2; fail "acpiexec $command"; }
  done
  if grep -E 'ACPI (Error|Warning|Exception|BIOS)|AE_[A-Z_]+' run | grep -vE 'AE_OK|^AcpiSetCurrentResources failed: AE_NOT_FOUND' >&2; then
    cat run >&2
    fail "$set: acpiexec complains"
  fi
  if [[ $which == all ]]; then  # what the host bridge's _CRS method has put together
    expect run "Address Maximum : DFFFFFFF"
    expect run "Address Minimum : 0000000140000000"
    expect run "Address Maximum : 000000113FFFFFFF"
  fi
  popd >/dev/null
done

# Where the addresses and ports of the sources come from: their headers say the same (acpi_tables_test.cc checks the bytes).
expect 1-all/VMMCOM1.dsl "0x03F8, // Range Minimum"
expect 1-all/VMMPANIC.dsl "0x0505, // Range Minimum"
expect 1-all/VMMCONF.dsl "Name (PWIN, 0x0000000140000000)"
refuse 1-none/VMMCONF.dsl "PWIN"
echo PASS
