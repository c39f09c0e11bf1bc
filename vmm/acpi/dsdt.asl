// What every machine has: the way to power off, and the ports of the power registers. The devices that a configuration
// can leave out are in an SSDT each.
DefinitionBlock ("", "DSDT", 2, "VMM", "VMMBASE", 1)
{
    // The value for SLP_TYP: acpi_registers.h decodes it.
    Name (\_S5, Package (0x04) { 0x05, 0x05, Zero, Zero })

    Scope (\_SB)
    {
        // Ports 0x600 to 0x602: acpi_registers.h.
        Device (PWRR)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0600, 0x0600, 0x01, 0x03)
            })
        }
    }
}
