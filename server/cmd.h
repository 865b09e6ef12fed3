/* The subcommands that main.c lists; each reads its own command line (server/cli.h). */
#ifndef VK_SERVER_CMD_H
#define VK_SERVER_CMD_H

int vk_serve_main(int argc, char **argv);   /* serve.c */
int vk_embed_main(int argc, char **argv);   /* cmd_embed.c */
int vk_cache_main(int argc, char **argv);   /* cmd_cache.c */
int vk_spaces_main(int argc, char **argv);  /* cmd_show.c */
int vk_providers_main(int argc, char **argv);
int vk_usage_main(int argc, char **argv);
int vk_keys_main(int argc, char **argv);    /* cmd_keys.c */
int vk_backup_main(int argc, char **argv);  /* cmd_backup.c */
int vk_restore_main(int argc, char **argv);
int vk_doctor_main(int argc, char **argv);  /* cmd_doctor.c */
int vk_import_main(int argc, char **argv);  /* cmd_import.c */
int vk_faiss_main(int argc, char **argv);   /* cmd_faiss.c */
int vk_search_main(int argc, char **argv);  /* cmd_search.c */
int vk_collections_main(int argc, char **argv);
int vk_collections_index_main(int argc, char **argv); /* cmd_index.c */
int vk_version_main(int argc, char **argv); /* cmd_version.c */

#endif
