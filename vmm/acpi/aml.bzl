"""Compiles ACPI source and makes it something that a C++ array can include."""

def compiled_asl(name, src):
    """NAME.inc: the bytes of the table. Warnings are errors; iasl's own notes appear only when it fails."""
    native.genrule(
        name = name,
        srcs = [src],
        outs = [name + ".inc"],
        cmd = """
            iasl -we -p $(@D)/{name} $< > $(@D)/{name}.log 2>&1 || {{ cat $(@D)/{name}.log >&2; exit 1; }}
            od -An -v -tx1 $(@D)/{name}.aml | sed 's/ \\(..\\)/0x\\1,/g' > $@
        """.format(name = name),
        message = "Compiling ACPI source",
    )
