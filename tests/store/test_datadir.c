/*
 * Goal: one server a data directory; FORMAT keeps another version's data from being misread; a
 * directory that is not ours is left alone.
 * Method: a child process holds the lock and lets go; FORMAT is rewritten by hand.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/datadir.h"

static void write_text(const char *dir, const char *name, const char *text)
{
	struct vk_error err;
	assert_int_equal(vk_file_replace(dir, name, text, strlen(text), &err), VK_OK);
}

static void test_datadir_new_one_is_made_and_opens_again(void **state)
{
	(void)state;
	struct temp t;
	struct vk_datadir d, r;
	struct vk_error err;
	char path[400];
	struct stat s;
	temp_make(&t);
	snprintf(path, sizeof path, "%s/data", t.path);
	assert_int_equal(vk_datadir_open_read(&r, path, &err), VK_E_NOT_FOUND);
	assert_int_equal(vk_datadir_open(&d, path, 0, &err), VK_OK);
	assert_int_equal(d.path[0], '/');
	assert_true(d.lock_fd >= 0);
	assert_int_equal(stat(path, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0700);
	/* Reading takes no lock, so it works beside the holder. */
	assert_int_equal(vk_datadir_open_read(&r, path, &err), VK_OK);
	assert_int_equal(r.lock_fd, -1);
	vk_datadir_close(&r);
	vk_datadir_close(&d);
	assert_int_equal(vk_datadir_open(&d, path, 0, &err), VK_OK);
	vk_datadir_close(&d);
	vk_dir_remove(path);
	temp_free(&t);
}

/* A child that holds the lock for some milliseconds. */
static pid_t hold(const char *path, unsigned ms)
{
	int ready[2];
	char byte;
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct vk_datadir d;
		struct vk_error err;
		if (vk_datadir_open(&d, path, 1000, &err)) _exit(1);
		if (write(ready[1], "x", 1) != 1) _exit(2);
		usleep(ms * 1000);
		_exit(0); /* without closing, as a crash would */
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void test_datadir_second_process_waits_or_names_the_holder(void **state)
{
	(void)state;
	struct temp t;
	struct vk_datadir d;
	struct vk_error err;
	char pid_text[32];
	temp_make(&t);
	pid_t pid = hold(t.path, 300);
	assert_int_equal(vk_datadir_open(&d, t.path, 50, &err), VK_E_BUSY);
	assert_int_equal(d.lock_fd, -1);
	snprintf(pid_text, sizeof pid_text, "\"pid\":%ld", (long)pid);
	assert_non_null(strstr(err.text, pid_text));
	assert_int_equal(vk_datadir_open(&d, t.path, 5000, &err), VK_OK);
	vk_datadir_close(&d);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	temp_free(&t);
}

static void test_datadir_other_formats_are_refused_with_advice(void **state)
{
	(void)state;
	static const struct {
		const char *format, *says;
	} cases[] = {
	    {"{\"veckeep\":2,\"lmdb\":\"0.9\",\"page_size\":4096}\n", "format 2"},
	    {"{\"veckeep\":1,\"lmdb\":\"1.0\",\"page_size\":4096}\n", "LMDB 1.0"},
	    {"{\"veckeep\":1,\"lmdb\":\"0.9\",\"page_size\":512}\n", "512"},
	    {"{\"veckeep\":1}\n", "damaged"},
	    {"veckeep 1\n", "damaged"},
	    {"", "damaged"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct temp t;
		struct vk_datadir d;
		struct vk_error err;
		temp_make(&t);
		write_text(t.path, "FORMAT", cases[i].format);
		assert_int_equal(vk_datadir_open(&d, t.path, 0, &err), VK_E_INVALID);
		assert_non_null(strstr(err.text, cases[i].says));
		assert_int_equal(d.lock_fd, -1);
		assert_int_equal(vk_datadir_open_read(&d, t.path, &err), VK_E_INVALID);
		temp_free(&t);
	}
}

static void test_datadir_of_somebody_else_is_left_alone(void **state)
{
	(void)state;
	struct temp t;
	struct vk_datadir d;
	struct vk_error err;
	char path[400];
	temp_make(&t);
	write_text(t.path, "thesis.txt", "do not touch");
	assert_int_equal(vk_datadir_open(&d, t.path, 0, &err), VK_E_INVALID);
	assert_non_null(strstr(err.text, "no data directory"));
	snprintf(path, sizeof path, "%s/FORMAT", t.path);
	assert_int_not_equal(access(path, F_OK), 0);
	snprintf(path, sizeof path, "%s/thesis.txt", t.path);
	assert_int_equal(vk_datadir_open(&d, path, 0, &err), VK_E_INVALID); /* a file */
	temp_free(&t);
}

static void test_datadir_many_start_at_once_one_at_a_time_holds_it(void **state)
{
	(void)state;
	struct temp t;
	char path[400], mark[420];
	int status;
	temp_make(&t);
	snprintf(path, sizeof path, "%s/data", t.path);
	snprintf(mark, sizeof mark, "%s/mark", t.path);
	pid_t pid[8];
	for (int i = 0; i < 8; i++) {
		pid[i] = fork();
		assert_true(pid[i] >= 0);
		if (pid[i]) continue;
		struct vk_datadir d;
		struct vk_error err;
		if (vk_datadir_open(&d, path, 10000, &err)) _exit(1);
		int fd = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
		if (fd < 0) _exit(2); /* somebody else is in there */
		usleep(5000);
		unlink(mark);
		vk_datadir_close(&d);
		_exit(0);
	}
	for (int i = 0; i < 8; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_int_equal(status, 0);
	}
	vk_dir_remove(path);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_datadir_new_one_is_made_and_opens_again),
	    cmocka_unit_test(test_datadir_second_process_waits_or_names_the_holder),
	    cmocka_unit_test(test_datadir_other_formats_are_refused_with_advice),
	    cmocka_unit_test(test_datadir_of_somebody_else_is_left_alone),
	    cmocka_unit_test(test_datadir_many_start_at_once_one_at_a_time_holds_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
