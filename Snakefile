# The workflow lives in workflow/; `snakemake --cores 8` here runs all of it.
include: "workflow/Snakefile"


rule default:  # an include sets no default target, so it is said here
    default_target: True
    input:
        rules.all.input,
    localrule: True
