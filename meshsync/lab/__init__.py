"""Labs: containerlab topologies that run here, with impairments, scenarios and verdicts.

A lab is a folder NAME with NAME.clab.yml (a containerlab topology) and scenario.yml (how the nodes are configured, what
befalls the links, what must hold).

    impairments, wire     what a link does to what goes through it: data, and the machine that does it
    agenda                what is on its way, until it is due
    topology              NAME.clab.yml: nodes, links, addresses; what the schema does not check
    scenario              scenario.yml: steps and expectations
    drivers               how a lab comes to life: network namespaces, containerlab, a simulation
"""
