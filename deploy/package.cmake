# The Debian package of daemon and command: `cpack --config build/release/CPackConfig.cmake`, in build/release/package.
# On installation nothing starts by itself: `systemctl enable --now gradwardend`, once the configuration says where to listen.
# Packing needs the two programs, not all targets.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/systemd/gradwardend.service DESTINATION lib/systemd/system COMPONENT daemon)
install(FILES ${PROJECT_SOURCE_DIR}/daemon/app/gradwardend.example.yaml DESTINATION /etc/gradwarden
  RENAME gradwardend.yaml COMPONENT daemon)
install(DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/prometheus ${CMAKE_CURRENT_LIST_DIR}/grafana ${CMAKE_CURRENT_LIST_DIR}/alertmanager
  DESTINATION share/doc/gradwarden COMPONENT daemon)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/RUNBOOK.md ${CMAKE_CURRENT_LIST_DIR}/THREAT_MODEL.md ${PROJECT_SOURCE_DIR}/CHANGELOG.md
  DESTINATION share/doc/gradwarden COMPONENT daemon)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION share/doc/gradwarden RENAME copyright COMPONENT daemon)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME gradwarden)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Stability guard and monitor for distributed training: daemon and command")
set(CPACK_PACKAGE_CONTACT "gradwarden developers <gradwarden@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/package)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL daemon)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_DAEMON_PACKAGE_NAME gradwarden)
set(CPACK_DEBIAN_DAEMON_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
file(WRITE ${PROJECT_BINARY_DIR}/conffiles "/etc/gradwarden/gradwardend.yaml\n")
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/conffiles)
include(CPack)
