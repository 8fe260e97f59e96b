"""Graph, clusters and layouts of a latent: of the first seed, for use and for looking.

input   results/{dataset}/latent/{latent}/seed{seed}.h5ad
output  results/{dataset}/cells/{latent}/seed{seed}/{graph.npz, clusters.tsv.gz, umap.h5ad}
"""


rule build_graph:
    """Find the nearest neighbours of each cell in the latent and weigh them."""
    input:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
    output:
        graph="results/{dataset}/cells/{latent}/seed{seed}/graph.npz",
    log:
        "results/{dataset}/logs/build_graph/{latent}.seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(600, 1.3),
        runtime=minutes(10, 0.015),
    params:
        code=library("build_graph"),
        packages=pinned("cells"),
        graph=lookup(dpath="graph", within=config),
    script:
        "../../scripts/build_graph.py"


rule cluster_cells:
    """Cluster the graph with Leiden at several resolutions."""
    input:
        graph="results/{dataset}/cells/{latent}/seed{seed}/graph.npz",
    output:
        clusters="results/{dataset}/cells/{latent}/seed{seed}/clusters.tsv.gz",
    log:
        "results/{dataset}/logs/cluster_cells/{latent}.seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(600, 2.3),
        runtime=minutes(10, 0.03),
    params:
        code=library("cluster_cells"),
        packages=pinned("cells"),
        clusters=lookup(dpath="clusters", within=config),
    script:
        "../../scripts/cluster_cells.py"


rule embed_umap:
    """Lay the graph out in two dimensions from several seeds, for viewing only."""
    input:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
        graph="results/{dataset}/cells/{latent}/seed{seed}/graph.npz",
    output:
        layout="results/{dataset}/cells/{latent}/seed{seed}/umap.h5ad",
    log:
        "results/{dataset}/logs/embed_umap/{latent}.seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(1400, 1.2),
        runtime=minutes(20, 0.03),
    params:
        code=library("embed_umap"),
        packages=pinned("cells"),
        layout=lookup(dpath="layout", within=config),
    script:
        "../../scripts/embed_umap.py"


rule embed_tsne:
    """Lay the latent out with t-SNE from several seeds, for viewing only."""
    input:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
    output:
        layout="results/{dataset}/cells/{latent}/seed{seed}/tsne.h5ad",
    log:
        "results/{dataset}/logs/embed_tsne/{latent}.seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(1400, 2),
        runtime=minutes(30, 0.1),
    params:
        code=library("embed_tsne"),
        packages=pinned("cells"),
        layout=lookup(dpath="layout", within=config),
    script:
        "../../scripts/embed_tsne.py"
